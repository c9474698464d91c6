"""Broken tokenizers: what is wrong is said, ids stay, and the mended one encodes like the one before it was broken."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import words
from inkling.errors import TokenizerError
from inkling.tokenizer.repair import repair
from inkling.tokenizer.train import train_bpe

TEXTS = [words(seed, 400) for seed in range(3)]
GOOD = train_bpe(TEXTS, 420, pattern="llama3")
CONTENT: dict[str, Any] = json.loads(GOOD.to_json())


def write(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(json.dumps(CONTENT))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False))
    return path


def test_nothing_is_wrong_with_a_good_one(tmp_path: Path) -> None:
    GOOD.save(tmp_path / "good")
    result = repair(tmp_path / "good")
    assert result.found == []
    assert result.tokenizer.sha256 == GOOD.sha256


def pop_byte(content: dict[str, Any]) -> None:
    number = content["model"]["vocab"].pop("Ā")
    assert isinstance(number, int)


BREAKAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no merges": (lambda c: c["model"].update(merges=[]), "there were no merges: "),
    "merges twice": (lambda c: c["model"]["merges"].append(c["model"]["merges"][0]), "1 merges stand twice: dropped"),
    "merges of no tokens": (lambda c: c["model"]["merges"].append(["zz", "q"]), "1 merges name tokens that are not in"),
    "no pairs": (lambda c: c["model"]["merges"].append("alone"), "1 merges are no pairs"),
    "no decoder": (lambda c: c.update(decoder=None), "nothing said how tokens are joined"),
    "unknown token": (lambda c: c["model"].update(unk_token="<unk>"), "stood for unknown text"),
    "special tokens are ordinary": (lambda c: c.update(added_tokens=[]), "'<|endoftext|>' was an ordinary token"),
    "wrong id of an added token": (
        lambda c: c["added_tokens"][0].update(id=77),
        "its id is that of the vocabulary now",
    ),
    "an empty added token": (lambda c: c["added_tokens"].append({"id": 999}), "an added token without content"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_mended_encodes_as_before(tmp_path: Path, name: str) -> None:
    change, said = BREAKAGES[name]
    result = repair(write(tmp_path / "tokenizer.json", change))
    assert any(said in line for line in result.found), result.found
    for text in [*TEXTS, "a <|endoftext|> b", "é日本\n\n  x"]:
        assert result.tokenizer.encode(text) == GOOD.encode(text)
        assert result.tokenizer.encode(text, allow_special=True) == GOOD.encode(text, allow_special=True)


def test_bytes_gaps_and_ids_given_twice(tmp_path: Path) -> None:
    result = repair(write(tmp_path / "a.json", pop_byte))
    assert result.found[0] == "1 of the 256 bytes were no tokens: added at the end"
    assert result.found[1].startswith("1 ids were no tokens: filled with <|reserved_")
    assert result.tokenizer.encode(TEXTS[0]) == GOOD.encode(TEXTS[0])
    assert result.tokenizer.decode(result.tokenizer.encode("\x00")) == "\x00"

    def same_id(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        vocabulary[list(vocabulary)[-1]] = vocabulary[list(vocabulary)[-2]]

    result = repair(write(tmp_path / "b.json", same_id))
    assert result.found[0].startswith("1 tokens had the id of another one")
    old, new = GOOD.token_bytes, result.tokenizer.token_bytes
    assert new[: len(old) - 1] == old[:-1]
    assert new[-1] == old[-1]


def test_no_end_of_text_token(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {f"tok{n}" if n < 3 else token: n for token, n in vocabulary.items()}
        content["added_tokens"] = []

    result = repair(write(tmp_path / "a.json", rename))
    assert "no token ends a document: <|endoftext|> added at the end" in result.found
    assert result.tokenizer.eot_id == GOOD.vocab_size


@pytest.mark.parametrize("merges", [True, False])
def test_a_folder_of_vocabulary_and_perhaps_merges(tmp_path: Path, merges: bool) -> None:
    gpt2 = train_bpe(TEXTS, 420, pattern="gpt2")
    content = json.loads(gpt2.to_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(content["vocab"]))
    if merges:
        (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in content["merges"]))
    result = repair(tmp_path)
    assert any("GPT-2's way is set" in line for line in result.found)
    assert result.tokenizer.encode(TEXTS[1]) == gpt2.encode(TEXTS[1])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json", "it is no JSON or cut short"),
        ('{"model": {"type": "BPE", "vocab"', "it is no JSON or cut short"),
        ("[1]", "it holds no object"),
        ('{"model": {"type": "Unigram", "vocab": {}}}', "it is a Unigram model"),
        ('{"model": {"type": "BPE", "vocab": {"a": "b"}}}', "the id of 'a' is 'b'"),
        ('{"model": {"type": "BPE", "vocab": {}}}', "its vocabulary is empty"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0, "中文": 1, "日本": 2}}}', "not spelled in bytes"),
        ('{"model": {"type": "BPE", "vocab": {"a": 1000000}}}', "are no tokens"),
        ('{"model": {}}', "it has no vocabulary"),
    ],
)
def test_what_cannot_be_mended_is_refused_with_the_reason(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=why):
        repair(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30_000), st.integers(0, 30_000), st.sampled_from(['"', "0", "null", "{}", "[1]", "-1", ""]))
def test_any_damage_is_mended_or_refused(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, by: str
) -> None:
    text = GOOD.to_json()
    start %= len(text)
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_text(text[:start] + by + text[start + length % 40 :], encoding="utf-8")
    with contextlib.suppress(TokenizerError):  # anything else is a failure
        mended = repair(path).tokenizer
        assert mended.decode(mended.encode("über\n12")) == "über\n12"
