"""Encoding is lossless and never makes control tokens of text; other tools read what we write."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.errors import TokenizerError
from inkling.tokenizer import EOT, Tokenizer
from inkling.tokenizer.patterns import choose_pattern
from inkling.tokenizer.report import report
from inkling.tokenizer.tokenizer import cut_at_safe_borders
from inkling.tokenizer.train import train_bpe

TEXT = "The quick brown fox, naïve café 東京 😀 12345\n\n    def f(x):\n\treturn x\n" * 30
TOKENIZER = train_bpe([TEXT], 500)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_every_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60))
def test_streaming_gives_the_same_text_as_decoding_at_once(ids: list[int]) -> None:
    stream = TOKENIZER.stream()
    pieces = [stream.push(token) for token in ids] + [stream.finish()]
    assert "".join(pieces) == TOKENIZER.decode(ids)


def test_streaming_holds_half_characters_back() -> None:
    stream = TOKENIZER.stream()
    shown = [stream.push(token) for token in TOKENIZER.encode("Ж😎")]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(shown)
    assert "".join(shown) == "Ж😎"
    assert shown[0] == ""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([EOT, "<|im_start|>", "<|im_end|>", "<|", "|>", "a", " ", "<|end"]), max_size=8))
def test_text_never_becomes_a_control_token(parts: list[str]) -> None:
    text = "".join(parts)
    ids = TOKENIZER.encode(text)
    assert not set(ids) & set(TOKENIZER.special_tokens.values())
    assert TOKENIZER.decode(ids) == text


def test_control_tokens_when_asked() -> None:
    assert TOKENIZER.encode(f"a{EOT}", allow_special=True)[-1] == TOKENIZER.eot_id == 0


@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "qwen2"])
@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("a1 .\n\r\té'東\u00a0"), max_size=80))
def test_cutting_at_safe_borders_changes_no_token(pattern: str, text: str) -> None:
    import regex

    from inkling.tokenizer.patterns import PATTERNS

    pieces = list(cut_at_safe_borders(text, 1))
    assert "".join(pieces) == text
    cut = [token for piece in pieces for token in regex.findall(PATTERNS[pattern], piece)]
    assert cut == regex.findall(PATTERNS[pattern], text)


def test_long_texts_encode_as_the_library_encodes_them_whole() -> None:
    text = TEXT * 40
    assert len(text) > 60_000
    assert TOKENIZER.encode(text) == TOKENIZER._plain.encode(text, add_special_tokens=False).ids


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    TOKENIZER.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXT)["input_ids"] == TOKENIZER.encode(TEXT)
    assert theirs.eos_token_id == TOKENIZER.eot_id
    again = Tokenizer.load(tmp_path)
    assert (again.sha256, again.pattern_name) == (TOKENIZER.sha256, "qwen2")


def test_the_hash_changes_with_the_merges_only() -> None:
    first = train_bpe([TEXT], 300)
    assert train_bpe([TEXT], 301).sha256 != first.sha256
    assert train_bpe([TEXT * 2], 300).sha256 == first.sha256


def test_tiktoken_ranks_give_the_same_ids(tmp_path: Path) -> None:
    ranks = {token: number - 3 for number, token in enumerate(TOKENIZER.token_bytes) if token}
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    path = tmp_path / "mine.tiktoken"
    path.write_text("\n".join(lines))
    loaded = Tokenizer.load(path)
    from inkling.tokenizer.patterns import PATTERNS

    reference = tiktoken.Encoding("mine", pat_str=PATTERNS["llama3"], mergeable_ranks=ranks, special_tokens={})
    for text in (TEXT, "Ж unseen 987", " \n\n x"):
        assert loaded.encode(text) == reference.encode(text)
    assert loaded.special_tokens == {EOT: len(ranks)}


def test_gpt2_files_give_tiktokens_ids(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(test_data / "gpt2" / "tiktoken_cache"))
    reference = tiktoken.get_encoding("gpt2")
    text = TEXT + (test_data / "tinyshakespeare.txt").read_text()[:50_000]
    for source in (test_data / "gpt2", "tiktoken:gpt2"):
        assert Tokenizer.load(source).encode(text) == reference.encode(text)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": "1.0"}', '{"model": {"type": "BPE", "vocab": {"a": -1}}}']
)
def test_a_broken_file_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match="is no tokenizer that can be used") as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="there is no tokenizer"):
        Tokenizer.load(tmp_path / "none")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "a.tiktoken").write_text("not base64!")
    with pytest.raises(TokenizerError, match="no file of tiktoken ranks"):
        Tokenizer.load(tmp_path / "a.tiktoken")


def test_report_counts_what_the_text_uses() -> None:
    found = report(TOKENIZER, ["The fox", "12"])
    ids = [*TOKENIZER.encode("The fox"), *TOKENIZER.encode("12")]
    assert found["tokens"] == len(ids)
    assert found["bytes_per_token"] == 9 / len(ids)
    assert found["unused"] == TOKENIZER.vocab_size - 3 - len(set(ids))
    assert found["digits"].count("'1'") >= 2
    assert found["documents_changed_by_round_trip"] == 0
    json.dumps(found)


@pytest.mark.parametrize(
    ("digits", "wanted"), [("whole", ["1234567"]), ("threes", ["123", "456", "7"]), ("single", [*"1234567"])]
)
def test_digits_choose_the_pattern(digits: str, wanted: list[str]) -> None:
    pattern = choose_pattern(None, digits, 4096)
    tokenizer = train_bpe(["1234567\n" * 9 + "123 456 7 " * 9], 400, pattern=pattern, special_tokens=[EOT, "<|x|>"])
    assert [tokenizer.decode([number]) for number in tokenizer.encode("1234567")] == wanted
    assert tokenizer.special_tokens == {EOT: 0, "<|x|>": 1}
    with pytest.raises(TokenizerError, match=f"does not cut digits {digits}"):
        choose_pattern("gpt2" if digits != "whole" else "qwen2", digits, 4096)
