"""Exact duplicates and clusters of near-duplicates among documents whose hashes and signatures lie on disk.

Memory is bounded: hashes are looked at in passes of at most `MAX_PASS` documents, and of each document only one number
is kept between passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from inkling.data.minhash import NUM_BANDS, similarity
from inkling.data.shingles import mix

MAX_PASS = 2_000_000
SIMILARITY = 0.75
"""Two documents with a key in common are near-duplicates from this estimated Jaccard similarity on: the estimate of a
pair of similarity 0.8 lies above it but for one time in ten."""

ReadColumn = Callable[[str], Iterator[np.ndarray]]
"""A column of all documents by its name, portion by portion."""


def exact_duplicates(read: ReadColumn, num_documents: int) -> np.ndarray:
    """(documents) bool: those whose hash an earlier document has. `read("digest")` gives (n, 2) uint64."""
    duplicate = np.zeros(num_documents, bool)
    for digests, places in _passes(read, "digest", num_documents):
        order = np.lexsort((places, digests[:, 1], digests[:, 0]))
        same = (digests[order[1:]] == digests[order[:-1]]).all(axis=1)
        duplicate[places[order[1:]][same]] = True
    return duplicate


def clusters(
    read: ReadColumn, wanted: np.ndarray, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """(documents) int64: for each document the smallest number of a document of its cluster; its own when it is alone.

    Args:
        read: Gives the columns `keys-N` (n) uint64 for each band N, and `slots` (n, slots) uint8.
        wanted: (documents) bool: the others are left alone.
    """
    root = np.arange(len(wanted))
    for band in range(NUM_BANDS):
        for keys, places in _passes(read, f"keys-{band}", len(wanted)):
            here = wanted[places] & (keys != 0)
            _join(root, *_candidates(keys[here], places[here]), read)
        on_progress(band + 1, NUM_BANDS)
    return root


def _passes(read: ReadColumn, name: str, num_documents: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values and document numbers, parted by value so that equal values come in the same pass."""
    num_passes = -(-num_documents // MAX_PASS)
    for number in range(num_passes):
        values, places = [], []
        start = 0
        for column in read(name):
            first = column if column.ndim == 1 else column[:, 0]
            found = np.flatnonzero(mix(first) % np.uint64(num_passes) == number)
            values.append(column[found])
            places.append(found + start)
            start += len(column)
        yield np.concatenate(values), np.concatenate(places)


def _candidates(keys: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with the same key: each with the first one of its key, and with the one before it."""
    order = np.lexsort((places, keys))
    keys, places = keys[order], places[order]
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    is_first = np.ones(len(keys), bool)
    is_first[same] = False
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    return np.concatenate([places[first[same]], places[same - 1]]), np.concatenate([places[same], places[same]])


def _join(root: np.ndarray, left: np.ndarray, right: np.ndarray, read: ReadColumn) -> None:
    """Join the clusters of those pairs that are alike enough."""
    apart = root[left] != root[right]
    left, right = left[apart], right[apart]
    if not len(left):
        return
    pairs = np.unique(np.stack([left, right], axis=1), axis=0)
    alike = _are_alike(pairs, read)
    left, right = pairs[alike, 0], pairs[alike, 1]
    while len(left):
        first, second = root[left], root[right]
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while (root[root] != root).any():
            root[:] = root[root]
        apart = root[left] != root[right]
        left, right = left[apart], right[apart]


def _are_alike(pairs: np.ndarray, read: ReadColumn) -> np.ndarray:
    """(pairs) bool, from the signatures of the documents that occur in them."""
    alike = np.zeros(len(pairs), bool)
    for begin in range(0, len(pairs), MAX_PASS // 8):
        some = pairs[begin : begin + MAX_PASS // 8]
        numbers, inverse = np.unique(some, return_inverse=True)
        slots = _rows(read, "slots", numbers)
        index = inverse.reshape(some.shape)
        alike[begin : begin + len(some)] = similarity(slots[index[:, 0]], slots[index[:, 1]]) >= SIMILARITY
    return alike


def _rows(read: ReadColumn, name: str, numbers: np.ndarray) -> np.ndarray:
    """The rows of a column with these document numbers, which are sorted."""
    rows, start = [], 0
    for column in read(name):
        stop = start + len(column)
        first, last = np.searchsorted(numbers, [start, stop])
        rows.append(column[numbers[first:last] - start])
        start = stop
    return np.concatenate(rows)
