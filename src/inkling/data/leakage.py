"""Validation text that stands in the training text too, found among the tokens of a data folder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inkling.data.shards import TokenSplit
from inkling.data.shingles import mix

RUN_TOKENS = 32  # a power of two
LEAKED_SHARE = 0.5
"""A document of which this share of all runs of 32 tokens stands in the training text is leaked."""
_MAX_RUNS = 2_000_000
"""Runs that are looked up; of more, an even sample chosen by their hash."""
_CHUNK_TOKENS = 1 << 20
_FILTER_BITS = 24
_BASE = 0x9E3779B97F4A7C15


def leaked_shares(train: TokenSplit, validation: TokenSplit) -> np.ndarray:
    """(validation documents) share of each document's runs of `RUN_TOKENS` tokens that stand in the training text.

    The end of a document is a token of its last run. A document of fewer tokens has one run, all of it.
    """
    every = np.uint64(max(1, validation.num_tokens // _MAX_RUNS))
    sampled = [_sample(hashes, starts, every) for hashes, starts in _runs(validation)]
    hashes = np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _ in sampled)])
    starts = np.concatenate([np.empty(0, np.int64), *(starts for _, starts in sampled)])
    unique, inverse = np.unique(hashes, return_inverse=True)
    hits = _stand_in(unique, train)[inverse]
    documents = np.searchsorted(validation.document_ends, starts, side="right")
    num_runs = np.bincount(documents, minlength=validation.num_documents)
    shares: np.ndarray = np.bincount(documents, hits, validation.num_documents) / np.maximum(num_runs, 1)
    return shares


def _sample(hashes: np.ndarray, starts: np.ndarray, every: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    wanted = hashes % every == 0
    return hashes[wanted], starts[wanted]


def _stand_in(hashes: np.ndarray, split: TokenSplit) -> np.ndarray:
    """(hashes) bool: which of some sorted hashes are those of a run in the split."""
    found = np.zeros(len(hashes), bool)
    if not len(hashes):
        return found
    filters = [_Filter(hashes, shift) for shift in (64 - _FILTER_BITS, 0)]
    for suspected, _ in _runs(split):
        for some in filters:
            suspected = suspected[some.may_hold(suspected)]
        places = np.minimum(np.searchsorted(hashes, suspected), len(hashes) - 1)
        found[places[hashes[places] == suspected]] = True
    return found


class _Filter:
    """Tells quickly of most hashes that they are not among some others, by a part of their bits."""

    def __init__(self, hashes: np.ndarray, shift: int) -> None:
        self._shift = np.uint64(shift)
        self._mask = np.uint64((1 << _FILTER_BITS) - 1)
        self._known = np.zeros(1 << _FILTER_BITS, bool)
        self._known[(hashes >> self._shift) & self._mask] = True

    def may_hold(self, hashes: np.ndarray) -> np.ndarray:
        """(hashes) bool: false for one that is none of them."""
        held: np.ndarray = self._known[(hashes >> self._shift) & self._mask]
        return held


def _runs(split: TokenSplit) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hashes and first positions of all runs: (n) uint64, (n) int64, chunk by chunk."""
    for start in range(0, split.num_tokens, _CHUNK_TOKENS):
        stop = min(start + _CHUNK_TOKENS, split.num_tokens)
        tokens = split.read(start, min(stop + RUN_TOKENS, split.num_tokens)).astype(np.uint64) + np.uint64(1)
        tokens = np.concatenate([tokens, np.zeros(RUN_TOKENS, np.uint64)])
        ends = _document_ends_at(split, start, stop)
        places = np.arange(start, stop)
        whole = ends - places >= RUN_TOKENS
        hashes = _rolling_hashes(tokens, stop - start)
        begins = np.concatenate([[start == 0 or start in split.document_ends], ends[1:] != ends[:-1]])
        short = np.flatnonzero(begins & ~whole)
        hashes[short] = _hashes_of_short(tokens, short, (ends - places)[short])
        wanted = np.flatnonzero(whole | (begins & ~whole))
        yield mix(hashes[wanted]), wanted + start


def _document_ends_at(split: TokenSplit, start: int, stop: int) -> np.ndarray:
    """(stop - start): the end of the document that each position lies in."""
    first, last = np.searchsorted(split.document_ends, [start, stop - 1], side="right")
    ends = split.document_ends[first : last + 1]
    return np.repeat(ends, np.diff(np.clip(ends, start, stop), prepend=start))


def _rolling_hashes(tokens: np.ndarray, count: int) -> np.ndarray:
    """(count): polynomial hash of the run at each position, by doubling its length."""
    hashes, length = tokens, 1
    while length < RUN_TOKENS:
        hashes = hashes[:-length] * np.uint64(pow(_BASE, length, 1 << 64)) + hashes[length:]
        length *= 2
    return hashes[:count].copy()


def _hashes_of_short(tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hash of each whole document that is shorter than a run, as if it were filled up with zeros."""
    hashes = np.zeros(len(starts), np.uint64)
    for offset in range(RUN_TOKENS):
        inside = offset < lengths
        hashes = hashes * np.uint64(_BASE) + np.where(inside, tokens[starts + np.where(inside, offset, 0)], 0)
    return hashes
