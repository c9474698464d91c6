"""Tokenizers in other tools' files give the same ids there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import words
from inkling.errors import TokenizerError
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.encoders import awkward_strings
from inkling.tokenizer.export import export
from inkling.tokenizer.train import train_bpe, train_char

TEXTS = [words(seed, 300) for seed in range(3)]


@pytest.fixture(scope="module", params=["gpt2", "llama3", "char"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_char(TEXTS) if request.param == "char" else train_bpe(TEXTS, 500, pattern=request.param)


def test_tiktoken_itself_gives_the_same_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import load_tiktoken_bpe

    assert export(tokenizer, tmp_path / "out", "tiktoken") == ["tokenizer.tiktoken", "tokenizer.tiktoken.json"]
    ranks = load_tiktoken_bpe(str(tmp_path / "out" / "tokenizer.tiktoken"))
    more = json.loads((tmp_path / "out" / "tokenizer.tiktoken.json").read_text())
    encoding = tiktoken.Encoding("ours", mergeable_ranks=ranks, **more)
    for text in awkward_strings(tokenizer):
        assert encoding.encode_ordinary(text) == tokenizer.encode(text)
        assert encoding.encode(text, allowed_special="all") == tokenizer.encode(text, allow_special=True)


@pytest.mark.filterwarnings("ignore")
def test_gpt2_files_are_read_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = train_bpe(TEXTS, 500, pattern="gpt2")
    assert export(tokenizer, tmp_path / "out", "gpt2") == ["encoder.json", "vocab.bpe"]
    (tmp_path / "out" / "encoder.json").rename(tmp_path / "out" / "vocab.json")
    (tmp_path / "out" / "vocab.bpe").rename(tmp_path / "out" / "merges.txt")
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path / "out")
    for text in awkward_strings(tokenizer):
        if "<|" not in text:
            assert theirs.encode(text) == tokenizer.encode(text), text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_what_was_written_is_read_back_the_same(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"export-{tokenizer.sha256[:8]}"
    if not folder.exists():
        export(tokenizer, folder, "tiktoken")
    again = Tokenizer.load(folder / "tokenizer.tiktoken")
    assert again.encode(text) == tokenizer.encode(text)
    assert again.special_tokens == tokenizer.special_tokens


def test_what_a_layout_cannot_say_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="can only hold tokenizers that split text by GPT-2's pattern"):
        export(train_bpe(TEXTS, 400, pattern="llama3"), tmp_path / "out", "gpt2")
    named = train_bpe(TEXTS, 400, pattern="gpt2").with_tokens(["ordinary"], special=False)
    with pytest.raises(TokenizerError, match=r"would be encoded otherwise\. Use tokenizer\.json"):
        export(named, tmp_path / "out", "tiktoken")
    export(named, tmp_path / "good", "tokenizer.json")
    assert Tokenizer.load(tmp_path / "good").sha256 == named.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    with pytest.raises(TokenizerError, match="is not empty"):
        export(named, tmp_path / "good", "tokenizer.json")
