"""The floors against models written out by hand."""

from __future__ import annotations

import lzma
import math
import random
from collections import Counter

import numpy as np
import pytest

from inkling.eval.floors import END, TrigramModel, trigram_bits_per_byte, xz_bits_per_byte


def brute_force(train: list[bytes]) -> tuple[Counter[tuple[int, ...]], Counter[tuple[int, ...]], Counter[int]]:
    trigrams: Counter[tuple[int, ...]] = Counter()
    for document in train:
        symbols = [END, END, *document, END]
        trigrams.update(zip(symbols, symbols[1:], symbols[2:], strict=False))
    bigrams: Counter[tuple[int, ...]] = Counter()
    unigrams: Counter[int] = Counter()
    for (_, b, c), count in trigrams.items():
        bigrams[b, c] += count
        unigrams[c] += count
    return trigrams, bigrams, unigrams


def probability(model: tuple[Counter, Counter, Counter], a: int, b: int, c: int) -> float:  # type: ignore[type-arg]
    trigrams, bigrams, unigrams = model

    def mixed(counts: dict[int, int], shorter: float) -> float:
        n, kinds = sum(counts.values()), len(counts)
        return (counts.get(c, 0) + kinds * shorter) / (n + kinds) if n else shorter

    one = mixed(dict(unigrams), 1 / 257)
    two = mixed({z: n for (y, z), n in bigrams.items() if y == b}, one)
    return mixed({z: n for (x, y, z), n in trigrams.items() if (x, y) == (a, b)}, two)


def test_every_probability_is_that_of_the_plain_model() -> None:
    chosen = random.Random(1)
    texts = [bytes(chosen.choices(b"abcd\n\xff", k=chosen.randint(0, 40))) for _ in range(12)]
    train, validation = texts[:8], texts[8:] + [b"zz\x00"]
    reference = brute_force(train)
    expected = 0.0
    for document in validation:
        symbols = [END, END, *document, END]
        expected -= sum(
            math.log2(probability(reference, *three)) for three in zip(symbols, symbols[1:], symbols[2:], strict=False)
        )
    num_bytes = sum(map(len, validation))
    assert trigram_bits_per_byte(train, validation) == pytest.approx(expected / num_bytes, rel=1e-9)


def test_the_probabilities_of_any_context_add_up_to_one() -> None:
    model = TrigramModel([b"abracadabra", b"banana"])
    for a, b in [(ord("a"), ord("b")), (END, END), (ord("z"), ord("a")), (ord("z"), ord("q"))]:
        total = sum(model.probabilities(np.array([a, b, c]))[0] for c in range(257))
        assert total == pytest.approx(1.0, abs=1e-12)


def test_repetition_is_nearly_free() -> None:
    assert trigram_bits_per_byte([b"ab" * 2000], [b"ab" * 2000]) < 0.01


def test_xz_is_the_size_that_the_tool_writes() -> None:
    text = b"to be or not to be " * 40
    assert xz_bits_per_byte([text[:100], text[100:]]) == 8 * len(lzma.compress(text, preset=9)) / len(text)
