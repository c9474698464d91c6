"""Honest floors: what a byte trigram model and `xz -9` reach on the same validation text.

A score says something only beside what needs no neural network. Both are counted as a model's bits per byte are:
document ends are predicted, and paid for, but are no bytes.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator

import numpy as np

NUM_SYMBOLS = 257
END = 256
"""The symbol that ends a document; it also stands before its first byte."""
_CHUNK_BYTES = 1 << 24


class TrigramModel:
    """Byte trigrams interpolated with bigrams, unigrams and the uniform distribution by Witten and Bell (1991).

    p(c | ab) = (n(abc) + t(ab) p(c | b)) / (n(ab) + t(ab)), with t(ab) the number of different symbols seen after ab;
    shorter contexts likewise. The 257 probabilities of a context add up to 1.
    """

    def __init__(self, train: Iterable[bytes]) -> None:
        self._counts = np.zeros(NUM_SYMBOLS**3, dtype=np.int64)  # 136 MB, whatever the size of the text
        for keys in _together(_trigram_keys(symbols) for symbols in _streams(train)):
            self._counts += np.bincount(keys, minlength=len(self._counts))
        trigrams = self._counts.reshape(NUM_SYMBOLS, NUM_SYMBOLS, NUM_SYMBOLS)
        bigrams = trigrams.sum(0)
        unigrams = bigrams.sum(0)
        uniform = np.full(NUM_SYMBOLS, 1 / NUM_SYMBOLS)
        self._unigram = _interpolate(unigrams[None], uniform)[0]  # (257)
        self._bigram = _interpolate(bigrams, self._unigram)  # (257, 257)
        self._num_after = trigrams.sum(2).reshape(-1)
        self._kinds_after = (trigrams > 0).sum(2).reshape(-1)

    def bits(self, document: bytes) -> float:
        """Bits that the document costs, its end included."""
        return sum(float(-np.log2(self.probabilities(symbols)).sum()) for symbols in _streams([document]))

    def following(self, first: int, second: int) -> np.ndarray:
        """The probability of each symbol after two others, (257)."""
        start = (first * NUM_SYMBOLS + second) * NUM_SYMBOLS
        counts, context = self._counts[start : start + NUM_SYMBOLS], first * NUM_SYMBOLS + second
        n, t, shorter = self._num_after[context], self._kinds_after[context], self._bigram[second]
        result: np.ndarray = (counts + t * shorter) / (n + t) if n > 0 else shorter
        return result

    def probabilities(self, symbols: np.ndarray) -> np.ndarray:
        """The probability of each symbol but the first two, given the two before it: (N) -> (N - 2)."""
        first, second, third = symbols[:-2], symbols[1:-1], symbols[2:]
        context = first * NUM_SYMBOLS + second
        n, t = self._num_after[context], self._kinds_after[context]
        seen = self._counts[context * NUM_SYMBOLS + third]
        shorter = self._bigram[second, third]
        known = n > 0
        result: np.ndarray = np.where(known, (seen + t * shorter) / np.where(known, n + t, 1), shorter)
        return result


def trigram_bits_per_byte(train: Iterable[bytes], validation: Iterable[bytes]) -> float:
    """Bits per byte of a byte trigram model of the training documents on the validation documents."""
    model = TrigramModel(train)
    bits = num_bytes = 0.0
    for document in validation:
        bits += model.bits(document)
        num_bytes += len(document)
    return bits / num_bytes


def xz_bits_per_byte(validation: Iterable[bytes]) -> float:
    """Bits per byte of `xz -9` on the validation documents, one after another."""
    text = b"".join(validation)
    return 8 * len(lzma.compress(text, preset=9)) / len(text)


def _interpolate(counts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    """(contexts, 257) counts and the shorter context's probabilities -> probabilities of the same shape."""
    n, t = counts.sum(1, keepdims=True), (counts > 0).sum(1, keepdims=True)
    return np.where(n > 0, (counts + t * shorter) / np.maximum(n + t, 1), np.broadcast_to(shorter, counts.shape))


def _trigram_keys(symbols: np.ndarray) -> np.ndarray:
    """One number for each three symbols in a row: (N) -> (N - 2)."""
    keys: np.ndarray = (symbols[:-2] * NUM_SYMBOLS + symbols[1:-1]) * NUM_SYMBOLS + symbols[2:]
    return keys


def _together(arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Small arrays joined into large ones: counting costs a pass over all 17 M trigrams, however few are counted."""
    waiting: list[np.ndarray] = []
    size = 0
    for array in arrays:
        waiting.append(array)
        size += len(array)
        if size > _CHUNK_BYTES:
            yield np.concatenate(waiting)
            waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _streams(documents: Iterable[bytes]) -> Iterator[np.ndarray]:
    """Portions of symbols, each with the two before it: END END d o c END."""
    for document in documents:
        symbols = np.full(len(document) + 3, END, dtype=np.int64)
        symbols[2:-1] = np.frombuffer(document, dtype=np.uint8)
        for start in range(0, len(symbols) - 2, _CHUNK_BYTES):
            yield symbols[start : start + _CHUNK_BYTES + 2]
