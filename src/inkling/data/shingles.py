"""Hashes of runs of words, for many documents at once: what finding near-duplicates and decontamination stand on.

A word is a run of letters, digits and underscores, ASCII letters in lower case; other bytes of UTF-8 count as letters,
and a character of the Chinese, Japanese and Korean blocks is a word of its own, since nothing parts words there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_BLOCK_BYTES = 1 << 18
"""Bytes hashed together: small enough that all that is computed of them stays in the cache."""


def _letters() -> np.ndarray:
    """(256) what each byte counts as in a word; 0 where it is in none."""
    table = np.arange(256, dtype=np.uint64)
    for byte in range(128):
        if not (chr(byte).isalnum() or byte == ord("_")):
            table[byte] = 0
    upper = np.arange(ord("A"), ord("Z") + 1)
    table[upper] = upper + 32
    return table


_LETTERS = _letters()
_FIRST_OF_IDEOGRAPH = (0xE3, 0xED)
_POWERS = np.multiply.accumulate(np.full(_BLOCK_BYTES + 1, _BASE)) * _BASE_INVERSE  # (n): BASE ** n
_INVERSE_POWERS = np.multiply.accumulate(np.full(_BLOCK_BYTES + 1, _BASE_INVERSE)) * _BASE


def mix(hashes: np.ndarray) -> np.ndarray:
    """Spread uint64 over all bits (the finalizer of splitmix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = hashes ^ (hashes >> np.uint64(31))
    return mixed


def shingles(documents: Sequence[bytes], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash of each run of `size` words, and the number of the document it stands in: (n) uint64, (n) int64, in order.

    A document of fewer words has one shingle, of all its words; a document without words has none.
    """
    words, starts = _word_hashes(b"\0".join(documents))
    ends = np.cumsum([len(document) + 1 for document in documents])
    word_counts = np.diff(np.searchsorted(starts, ends, side="left"), prepend=0)
    first_words = np.cumsum(word_counts) - word_counts
    counts = np.maximum(word_counts - size + 1, np.minimum(word_counts, 1))
    numbers = np.repeat(np.arange(len(documents)), counts)
    begins = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts) + first_words[numbers]
    padded = np.concatenate([words, np.zeros(size, np.uint64)])
    hashes = padded[begins]
    for offset in range(1, size):
        within = offset < word_counts[numbers]  # only a document of few words ends earlier
        hashes = np.where(within, hashes * _BASE + padded[begins + offset], hashes)
    return mix(hashes), numbers


def _word_hashes(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Hash and first byte of each word, in order: (number of words) uint64, int64."""
    hashes, starts = [], []
    start = 0
    while start < len(data):
        stop = min(start + _BLOCK_BYTES, len(data))
        if stop < len(data):
            stop = _between_words(data, start, stop)
        block_hashes, block_starts = _hashes_of_block(np.frombuffer(data, np.uint8, stop - start, start))
        hashes.append(block_hashes)
        starts.append(block_starts + start)
        start = stop
    if not hashes:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    return np.concatenate(hashes), np.concatenate(starts)


def _between_words(data: bytes, start: int, stop: int) -> int:
    """A border at or before `stop`; in the middle of a word that is very long."""
    for here in range(stop, max(start, stop - 1024), -1):
        if not _LETTERS[data[here]]:
            return here
    return stop


def _hashes_of_block(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polynomial hashes of all words from the differences of one running sum."""
    letters = _LETTERS[data]
    inside = letters != 0
    begins = inside.copy()
    begins[1:] &= ~inside[:-1] | ((data[1:] >= _FIRST_OF_IDEOGRAPH[0]) & (data[1:] <= _FIRST_OF_IDEOGRAPH[1]))
    starts = np.flatnonzero(begins)
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(letters * _POWERS[: len(data)], out=sums[1:])
    stops = np.append(starts[1:], len(data))  # what lies between two words adds nothing to the sum
    return mix((sums[stops] - sums[starts]) * _INVERSE_POWERS[starts]), starts
