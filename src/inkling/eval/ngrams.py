"""Bits per byte of a byte n-gram model of high order: how hard a text is, told in a second and without training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ORDER = 6
_BITS = 9  # 256 bytes and the end of a document; seven of them fit into 64 bits
_DISCOUNT = 0.75
_WITTEN_BELL_UP_TO = 2


def ngram_bits_per_byte(train: Iterable[bytes], validation: Iterable[bytes], order: int = ORDER) -> float:
    """Bits per byte of an interpolated n-gram model of the training documents on the validation documents.

    Orders 1 and 2 are interpolated after Witten and Bell (1991), higher ones by absolute discounting (Ney et al. 1994).
    Document ends are predicted, and paid for, but are no bytes. Takes about half a second for a megabyte.

    Args:
        order: Symbols in an n-gram, 1 to 7.
    """
    assert 1 <= order <= 64 // _BITS
    validation = list(validation)
    known, text = _stream(train, order), _stream(validation, order)
    probability = np.full(len(text) - order + 1, 1 / 257)
    for n in range(1, order + 1):
        probability = _interpolate(_keys(known, n), _keys(text, n)[order - n :], probability, n)
    return float(-np.log2(probability).sum() / max(1, sum(map(len, validation))))


def _interpolate(known: np.ndarray, text: np.ndarray, shorter: np.ndarray, n: int) -> np.ndarray:
    """The probability of the last symbol of each n-gram of `text`, from that of the shorter context."""
    grams, counts = np.unique(known, return_counts=True)
    contexts, start = np.unique(grams >> np.uint64(_BITS), return_index=True)
    totals = np.add.reduceat(counts, start)
    kinds = np.diff(np.append(start, len(grams)))
    place = np.minimum(np.searchsorted(grams, text), len(grams) - 1)
    count = np.where(grams[place] == text, counts[place], 0)
    context = text >> np.uint64(_BITS)
    place = np.minimum(np.searchsorted(contexts, context), len(contexts) - 1)
    seen, total, kind = contexts[place] == context, totals[place], kinds[place]
    if n <= _WITTEN_BELL_UP_TO:
        longer = (count + kind * shorter) / (total + kind)
    else:
        longer = (np.maximum(count - _DISCOUNT, 0) + _DISCOUNT * kind * shorter) / total
    return np.where(seen, longer, shorter)


def _stream(documents: Iterable[bytes], order: int) -> np.ndarray:
    """Symbols of all documents, each ended by 0, with enough of them before the first."""
    parts = [np.zeros(order - 1, np.uint64)]
    for document in documents:
        parts += [np.frombuffer(document, np.uint8).astype(np.uint64) + np.uint64(1), np.zeros(1, np.uint64)]
    return np.concatenate(parts)


def _keys(symbols: np.ndarray, n: int) -> np.ndarray:
    """One number for each n symbols in a row: (N) -> (N - n + 1)."""
    keys = np.zeros(len(symbols) - n + 1, np.uint64)
    for place in range(n):
        keys = (keys << np.uint64(_BITS)) | symbols[place : len(symbols) - n + 1 + place]
    return keys
