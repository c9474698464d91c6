"""Fast encoders: the same ids as `tokenizers`, or not used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import words
from inkling.tokenizer import Tokenizer, encoders
from inkling.tokenizer.train import train_bpe, train_char

TEXTS = [words(seed, 300) + "".join(map(chr, range(32, 0x250))) for seed in range(3)]


@pytest.fixture(scope="module", params=["gpt2", "llama3", "qwen2", "char"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "char":
        return train_char(TEXTS)
    return train_bpe(TEXTS, 500, pattern=request.param)


@pytest.mark.parametrize("name", ["gigatoken", "tiktoken"])
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=5))
def test_ids_are_those_of_tokenizers(tokenizer: Tokenizer, name: str, texts: list[str]) -> None:
    pytest.importorskip(name)
    ids, lengths = encoders.by_name(name, tokenizer).encode(texts)
    wanted = [tokenizer.encode(text) for text in texts]
    assert lengths.tolist() == [len(some) for some in wanted]
    assert ids.tolist() == [number for some in wanted for number in some]


def test_the_fastest_is_taken_and_text_of_special_tokens_stays_text(tokenizer: Tokenizer) -> None:
    pytest.importorskip("gigatoken")
    encoder, notes = encoders.fastest(tokenizer, TEXTS)
    assert (encoder.name, notes) == ("gigatoken", [])
    ids, _ = encoder.encode(["a<|endoftext|>b"])
    assert tokenizer.eot_id not in ids.tolist()
    assert tokenizer.decode(ids.tolist()) == "a<|endoftext|>b"
    assert [len(part) for part in encoder.encode([])] == [0, 0]


class OneIdOff(encoders.TokenizersEncoder):
    """Encodes one word otherwise."""

    name = "wrong"

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, lengths = super().encode(texts)
        for number, text in enumerate(texts):
            if "über" in text:
                ids[int(lengths[:number].sum())] += 1
        return ids, lengths


class Fails(encoders.TokenizersEncoder):
    def __init__(self, tokenizer: Tokenizer) -> None:
        raise ValueError("no such\npattern")


def test_an_encoder_that_differs_or_fails_is_passed_over_with_the_reason(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_BY_SPEED", {"wrong": OneIdOff, "broken": Fails})
    encoder, notes = encoders.fastest(tokenizer, ["über", "and so on", *TEXTS])
    assert encoder.name == "tokenizers"
    assert notes[0].startswith("wrong is not used: it encodes ")
    assert notes[1] == "broken cannot be used: no such pattern"
    monkeypatch.setattr(encoders, "_BY_SPEED", {"wrong": OneIdOff})
    assert encoders.fastest(tokenizer, ["nothing of it"])[0].name == "wrong"


def test_the_pattern_of_imported_tokenizers(tokenizer: Tokenizer, test_data: Path) -> None:
    gpt2 = Tokenizer.load(test_data / "gpt2")
    encoder, _ = encoders.fastest(gpt2, [])
    assert encoder.name in ("gigatoken", "tiktoken")
    with (test_data / "books_20mb.txt").open(encoding="utf-8") as file:
        text = file.read(1_000_000)
    assert encoder.encode([text])[0].tolist() == gpt2.encode(text)
