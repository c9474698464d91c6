"""A byte-level BPE trainer in numpy (Sennrich et al., arXiv:1508.07909, over bytes as in GPT-2).

The merges are those of Hugging Face's `BpeTrainer` with `min_frequency=2` for the same pattern and text, ties included.
All unique pretokens lie in one flat array; a merge touches only the places where its pair stands, and numpy does them
all at once.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
import regex

from inkling.processes import map_in_processes
from inkling.tokenizer.patterns import PATTERNS
from inkling.tokenizer.stand_ins import BYTE_OF_CHARACTER
from inkling.tokenizer.tokenizer import cut_at_safe_borders

MIN_PAIR_COUNT = 2
"""A pair seen once is no pattern: merging it would spell a piece of the text as a token."""
MAX_UNIQUE_PRETOKENS = 3_000_000
"""Above this many, those seen once are forgotten; measured to cost at most 0.02 bytes per token."""
_PIECE_CHARACTERS = 2_000
_BATCH_CHARACTERS = 4_000_000

# Ids are those of Hugging Face's trainer: the 256 bytes sorted by their stand-in characters, then merges. Ties between
# pairs of equal count go to the smaller ids, so the order matters.
_BYTE_OF_ID = [BYTE_OF_CHARACTER[character] for character in sorted(BYTE_OF_CHARACTER)]
_ID_OF_BYTE = np.argsort(np.array(_BYTE_OF_ID)).astype(np.int64)
_END = -1  # between two pretokens
_GONE = -2  # merged into the symbol before

Merge = tuple[bytes, bytes]
ProgressFn = Callable[[float, float], None]


# ---------------------------------------------------------------- counting


def count_pretokens(texts: Iterable[str], pattern: str, num_workers: int = 1) -> Counter[str]:
    """How often each piece that `pattern` cuts out stands in the texts. Memory grows with unique pieces only."""
    counts: Counter[str] = Counter()
    batches = ((batch, pattern) for batch in _batches(texts))
    for result in map_in_processes(_count_batch, batches, num_workers):
        _add(counts, result)
    return counts


def _add(counts: Counter[str], more: Counter[str]) -> None:
    counts.update(more)
    if len(counts) > MAX_UNIQUE_PRETOKENS:
        for pretoken in [pretoken for pretoken, count in counts.items() if count == 1]:
            del counts[pretoken]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Pieces of the texts, together about `_BATCH_CHARACTERS`: small ones, so that most are pure ASCII."""
    batch: list[str] = []
    size = 0
    for text in texts:
        for piece in cut_at_safe_borders(text, _PIECE_CHARACTERS):
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    yield batch


def _count_batch(job: tuple[list[str], str]) -> Counter[str]:
    pieces, pattern = job
    find, find_ascii = _finders(pattern)
    counts: Counter[str] = Counter()
    for piece in pieces:
        counts.update((find_ascii if piece.isascii() else find)(piece))
    return counts


@cache
def _finders(pattern: str) -> tuple[Callable[[str], list[str]], Callable[[str], list[str]]]:
    """Functions that cut a text into pretokens: for any text, and a faster one for ASCII."""
    expression = PATTERNS[pattern]
    ascii_expression = expression.replace(r"[^\s\p{L}\p{N}]", r"[^\sA-Za-z0-9]")
    ascii_expression = ascii_expression.replace(r"[^\r\n\p{L}\p{N}]", r"[^\r\nA-Za-z0-9]")
    ascii_expression = ascii_expression.replace(r"\p{L}", "[A-Za-z]").replace(r"\p{N}", "[0-9]")
    return regex.compile(expression).findall, re.compile(ascii_expression, re.ASCII).findall


# ---------------------------------------------------------------- merging


def learn_merges(
    texts: Iterable[str],
    num_merges: int,
    pattern: str,
    *,
    num_workers: int = 1,
    on_progress: ProgressFn | None = None,
) -> list[Merge]:
    """The first `num_merges` merges for the texts, in order; fewer when no pair stands twice any more.

    Args:
        pattern: `gpt2`, `llama3` or `qwen2`.
        num_workers: Processes that count; merging takes one.
        on_progress: Told how many merges of how many are learnt.
    """
    counts = count_pretokens(texts, pattern, num_workers)
    symbols = _Symbols(counts)
    del counts  # the symbols hold all that is needed
    tokens = [bytes([byte]) for byte in _BYTE_OF_ID]
    id_of_token = {token: number for number, token in enumerate(tokens)}
    merges: list[Merge] = []
    target = len(tokens) + num_merges
    while len(tokens) < target and (pair := symbols.most_frequent()) is not None:
        left, right = pair
        merges.append((tokens[left], tokens[right]))
        token = tokens[left] + tokens[right]
        if token not in id_of_token:  # two pairs may spell the same token; it keeps its id
            id_of_token[token] = len(tokens)
            tokens.append(token)
        symbols.merge(left, right, id_of_token[token])
        if on_progress is not None and len(tokens) % 64 == 0:
            on_progress(len(tokens) - 256, num_merges)
    return merges


class _Symbols:
    """Every unique pretoken as a chain of ids in flat arrays, with the places of each pair.

    `places` may name places where the pair no longer stands; they are sorted out when the pair is merged.
    """

    def __init__(self, counts: Counter[str]) -> None:
        encoded = [pretoken.encode() for pretoken in counts]
        lengths = np.array([len(pretoken) for pretoken in encoded], dtype=np.int64)
        # Each pretoken is followed by one _END, so that the neighbour of a last symbol is no symbol.
        separated = np.frombuffer(b"\0".join(encoded) + b"\0", dtype=np.uint8)
        ends = np.cumsum(lengths + 1) - 1
        self.ids = _ID_OF_BYTE[separated].astype(np.int32)
        self.ids[ends] = _END
        self.weights = np.repeat(np.fromiter(counts.values(), np.int64, len(counts)), lengths + 1)
        assert len(self.ids) < 1 << 31
        self.next = np.arange(1, len(self.ids) + 1, dtype=np.int32)
        self.previous = np.arange(-1, len(self.ids) - 1, dtype=np.int32)
        self.previous[0] = len(self.ids) - 1  # the last place is an _END: nothing stands before the first symbol
        self.counts: dict[int, int] = {}
        self.places: dict[int, np.ndarray] = {}
        self.queue: list[tuple[int, int]] = []
        starts = np.flatnonzero((self.ids[:-1] != _END) & (self.ids[1:] != _END)).astype(np.int32)
        self._add(starts)

    def most_frequent(self) -> tuple[int, int] | None:
        """The pair that stands most often, among equals the one of the smallest ids; None if none stands twice."""
        while self.queue:
            negative, key = heapq.heappop(self.queue)
            count = self.counts[key]
            if count == -negative:
                return (key >> 32, key & 0xFFFFFFFF) if count >= MIN_PAIR_COUNT else None
            if count >= MIN_PAIR_COUNT:
                heapq.heappush(self.queue, (-count, key))
        return None

    def merge(self, left: int, right: int, new: int) -> None:
        """Replace each (left, right) by `new` and bring the counts of the pairs around up to date."""
        first = self._standing(left, right)
        second = self.next[first]
        before, after = self.previous[first], self.next[second]
        # Pairs that vanish, by the place of their left part: around a merged pair, and the pair itself.
        around = np.concatenate([before[self.ids[before] != _END], second[self.ids[after] != _END]])
        self._subtract(np.unique(np.concatenate([around, first])))
        self.ids[first] = new
        self.ids[second] = _GONE
        self.next[first] = after
        self.previous[after] = first
        before = self.previous[first]
        self._add(np.unique(np.concatenate([before[self.ids[before] != _END], first[self.ids[after] != _END]])))

    def _standing(self, left: int, right: int) -> np.ndarray:
        """Places where (left, right) stands now, sorted, without overlaps: "aaa" holds "aa" once."""
        places: np.ndarray = self.places.pop((left << 32) | right)
        places = places[(self.ids[places] == left) & (self.ids[self.next[places]] == right)]
        if left != right or len(places) < 2:
            return places
        index = np.arange(len(places))
        continues = np.concatenate([[False], places[1:] == self.next[places[:-1]]])
        run_start = np.maximum.accumulate(np.where(continues, 0, index))
        taken: np.ndarray = places[(index - run_start) % 2 == 0]
        return taken

    def _keys(self, places: np.ndarray) -> np.ndarray:
        keys: np.ndarray = (self.ids[places].astype(np.int64) << 32) | self.ids[self.next[places]]
        return keys

    def _subtract(self, places: np.ndarray) -> None:
        keys, inverse = np.unique(self._keys(places), return_inverse=True)
        totals = np.bincount(inverse, weights=self.weights[places])
        for key, total in zip(keys.tolist(), totals.tolist(), strict=True):
            self.counts[key] -= int(total)

    def _add(self, places: np.ndarray) -> None:
        keys = self._keys(places)
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        borders = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, int)
        totals = np.add.reduceat(self.weights[places], borders) if len(keys) else np.empty(0, int)
        stops = [*borders[1:].tolist(), len(places)]
        for key, total, start, stop in zip(
            keys[borders].tolist(), totals.tolist(), borders.tolist(), stops, strict=False
        ):
            here = places[start:stop]
            if key in self.places:  # the id was in use before
                here = np.union1d(self.places[key], here)
            self.places[key] = here
            self.counts[key] = self.counts.get(key, 0) + total
            heapq.heappush(self.queue, (-self.counts[key], key))
