"""The n-gram model against a slow one written from the definition, and against what must hold for any model."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from inkling.eval.ngrams import ngram_bits_per_byte


def slow(train: list[bytes], validation: list[bytes], order: int) -> float:
    """The same by definition: dictionaries, one symbol at a time."""

    def stream(documents: list[bytes]) -> list[int]:
        return [0] * (order - 1) + [s for document in documents for s in [*(b + 1 for b in document), 0]]

    known, text = stream(train), stream(validation)
    counts = Counter(tuple(known[i : i + n]) for n in range(1, order + 1) for i in range(len(known) - n + 1))
    after: dict[tuple[int, ...], list[int]] = {}
    for gram, count in counts.items():
        after.setdefault(gram[:-1], []).append(count)
    bits = 0.0
    for i in range(order - 1, len(text)):
        p = 1 / 257
        for n in range(1, order + 1):
            gram = tuple(text[i - n + 1 : i + 1])
            follow = after.get(gram[:-1])
            if follow is None:
                continue
            count, total, kinds = counts.get(gram, 0), sum(follow), len(follow)
            discounted = (max(count - 0.75, 0) + 0.75 * kinds * p) / total
            p = (count + kinds * p) / (total + kinds) if n <= 2 else discounted
        bits -= math.log2(p)
    return bits / sum(map(len, validation))


@pytest.mark.parametrize("order", [1, 2, 3, 6, 7])
def test_it_is_the_model_of_its_definition(order: int) -> None:
    random = np.random.default_rng(order)
    documents = [bytes(random.choice([97, 98, 99, 255], size=random.integers(1, 80)).tolist()) for _ in range(12)]
    found = ngram_bits_per_byte(documents[:8], documents[8:], order)
    assert found == pytest.approx(slow(documents[:8], documents[8:], order), rel=1e-9)


def test_random_bytes_cannot_be_predicted_and_repetition_can() -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    assert ngram_bits_per_byte([noise[:16_000]], [noise[16_000:]]) > 7.9
    assert ngram_bits_per_byte([b"abcdefgh" * 2000], [b"abcdefgh" * 500]) < 0.05
