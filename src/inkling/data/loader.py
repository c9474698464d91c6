"""From shards to batches. Stateless: what a step sees is a function of `(seed, step)`, so resuming needs no state.

Letters in shapes: B batch, T context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from inkling.data.shards import TokenSplit
from inkling.data.shuffle import permute
from inkling.errors import DataError

MIXED_WINDOWS = 4096
"""Windows in which every source of a mixture has its share."""
MAX_SHUFFLED = 1 << 21
"""Documents whose order is held in memory."""
IGNORED = -100
"""A target that is not predicted."""


@dataclass(frozen=True)
class Batch:
    """Packed documents.

    Attributes:
        input_ids: (B, T) int64.
        targets: (B, T) int64: what follows each input, or -100 past the end of the text.
        segment_ids: (B, T) int64: the document that each position belongs to, which starts with the end-of-text token
            of the one before. None where no row has a border inside: attention needs no mask then, and is faster.
    """

    input_ids: np.ndarray
    targets: np.ndarray
    segment_ids: np.ndarray | None

    @classmethod
    def of(cls, input_ids: np.ndarray, targets: np.ndarray, eot_id: int) -> Batch:
        """A batch whose segments are read off the end-of-text tokens."""
        starts = input_ids == eot_id
        segment_ids = np.cumsum(starts, axis=1) if starts[:, 1:].any() else None
        return cls(input_ids, targets, segment_ids)


class PackedWindows:
    """Training batches: documents in a new order each epoch, joined into one stream, cut into windows without padding.

    The stream of an epoch is a circle that begins at a random phase, so windows differ between epochs even when there
    is one document. Windows overlap by one token: each token is predicted once in an epoch, but for those of a last
    partial window. Windows are visited in a random order too. Of several sources, each has its share of every
    `MIXED_WINDOWS` windows, and its own epochs.

    Args:
        sources: Training tokens, and the share of the windows that are cut from them; shares sum to 1.
        context: T.
        batch_size: B.
        seed: Of the order and the phases.
        eot_id: End-of-text token, which separates documents.
        stride: Tokens from the beginning of a window to that of the next; less than T makes windows overlap, so that an
            epoch predicts each token T / stride times. Default: T.
    """

    def __init__(
        self,
        sources: Sequence[tuple[TokenSplit, float]],
        *,
        context: int,
        batch_size: int,
        seed: int,
        eot_id: int,
        stride: int | None = None,
    ) -> None:
        self.context = context
        self.batch_size = batch_size
        self.eot_id = eot_id
        self._seed = seed
        self._sources = [
            _Source(split, context, stride or context, seed, number) for number, (split, _) in enumerate(sources)
        ]
        self.windows_per_epoch = sum(source.windows_per_epoch for source in self._sources)
        """Windows of one pass over as many tokens as there are."""
        if batch_size > self.windows_per_epoch:
            raise DataError(
                f"the training text has {self.windows_per_epoch:,} windows of {context:,} tokens, less than a batch of "
                f"{batch_size:,}. Lower --batch-size to {self.windows_per_epoch:,} or --context, or prepare more text"
            )
        self._quotas = quotas([share for _, share in sources], MIXED_WINDOWS)
        self._block = lru_cache(maxsize=2)(self._make_block)  # a batch may span two

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """The batch of a step, or the rows of it that are those of one rank of several: (B / world_size, T)."""
        rows = self.batch_size // world_size
        return self.rows(step * self.batch_size + rank * rows, rows)

    def rows(self, first: int, number: int, context: int | None = None) -> Batch:
        """So many rows from number `first` on, each a window, or a part of `context` tokens of one: (number, context).

        `context` divides T: the T / context parts of a window are rows that follow each other, and no token is lost.
        """
        context = context or self.context
        parts = self.context // context
        rows = []
        for row in range(first, first + number):
            window, part = divmod(row, parts)
            rows.append(self._window(window)[part * context : (part + 1) * context + 1])
        tokens = np.stack(rows)
        return Batch.of(tokens[:, :-1], tokens[:, 1:], self.eot_id)  # (B, T + 1) -> (B, T) twice

    def passes(self, num_steps: int) -> list[float]:
        """How often each source is passed over in so many steps."""
        shares = self._quotas / MIXED_WINDOWS
        num_windows = num_steps * self.batch_size
        return [num_windows * share / s.windows_per_epoch for share, s in zip(shares, self._sources, strict=True)]

    def _window(self, number: int) -> np.ndarray:
        """T + 1 token ids of the window that is visited as number `number`."""
        if len(self._sources) == 1:
            return self._sources[0].window(number)
        block, slot = divmod(number, MIXED_WINDOWS)
        source_of, rank_in_source = self._block(block)
        source = int(source_of[slot])
        return self._sources[source].window(block * int(self._quotas[source]) + int(rank_in_source[slot]))

    def _make_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each window in a block: its source, and how many of that source come before it in the block."""
        places = permute(np.arange(MIXED_WINDOWS), MIXED_WINDOWS, _key(self._seed, block, -1))
        source_of = np.searchsorted(np.cumsum(self._quotas), places, side="right")
        ranks = np.zeros(MIXED_WINDOWS, np.int64)
        for source in range(len(self._sources)):
            here = source_of == source
            ranks[here] = np.arange(np.count_nonzero(here))
        return source_of, ranks


def quotas(shares: Sequence[float], total: int) -> np.ndarray:
    """(shares) whole numbers that sum to `total`, by largest remainder; each share that is not 0 has at least one."""
    wanted = np.array(shares) / sum(shares) * total
    counts = np.maximum(np.floor(wanted).astype(np.int64), (wanted > 0).astype(np.int64))
    for place in np.argsort(np.floor(wanted) - wanted, kind="stable")[: max(0, total - int(counts.sum()))]:
        counts[place] += 1
    counts[np.argmax(counts)] -= counts.sum() - total
    return counts


def _key(seed: int, *more: int) -> int:
    """A key for `permute`."""
    return int(np.random.SeedSequence((seed, *(number + 1 for number in more))).generate_state(1, np.uint64)[0])


class _Source:
    """The windows of one split, epoch after epoch."""

    def __init__(self, split: TokenSplit, context: int, stride: int, seed: int, number: int) -> None:
        self.windows_per_epoch = split.num_tokens // stride if split.num_tokens >= context else 0
        if self.windows_per_epoch == 0:
            raise DataError(
                f"the training text has {split.num_tokens:,} tokens, less than one context of {context:,}. "
                "Lower --context or prepare more text"
            )
        self._split = split
        self._context = context
        self._stride = stride
        self._seeds = (seed, number)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def window(self, number: int) -> np.ndarray:
        """T + 1 token ids of the window that is visited as number `number`, over all epochs."""
        epoch, number = divmod(number, self.windows_per_epoch)
        return self._epoch(epoch).read(number, self._context, self._stride)

    def _make_epoch(self, epoch: int) -> _Epoch:
        return _Epoch(self._split, (*self._seeds, epoch), self.windows_per_epoch)


class _Epoch:
    """One pass over the text: order of documents, phase of the stream, order of windows."""

    def __init__(self, split: TokenSplit, seeds: tuple[int, int, int], num_windows: int) -> None:
        self._split = split
        self._num_windows = num_windows
        self._key = _key(*seeds)
        random = np.random.default_rng(seeds)
        # Of very many documents, neighbours stay together, so that the order fits into memory.
        together = -(-split.num_documents // MAX_SHUFFLED)
        ends = np.append(split.document_ends[together - 1 : -1 : together], split.num_tokens)
        starts = np.concatenate([[0], ends[:-1]])
        order = random.permutation(len(starts))
        self._starts = starts[order]  # where each document of the stream begins in the split
        lengths = ends[order] - self._starts
        self._offsets = np.concatenate([[0], np.cumsum(lengths)])  # where it begins in the stream
        self._phase = int(random.integers(split.num_tokens))

    def read(self, number: int, context: int, stride: int) -> np.ndarray:
        """`context` + 1 tokens of the window that is visited as number `number`."""
        place = int(permute(np.array([number]), self._num_windows, self._key)[0])
        position = (self._phase + place * stride) % self._split.num_tokens
        window = np.empty(context + 1, dtype=np.int64)
        filled = 0
        document = int(np.searchsorted(self._offsets, position, side="right")) - 1
        while filled <= context:
            inside = position - self._offsets[document]
            start = int(self._starts[document] + inside)
            length = min(int(self._offsets[document + 1] - position), context + 1 - filled)
            window[filled : filled + length] = self._split.tokens(start, start + length)
            filled += length
            document = (document + 1) % (len(self._offsets) - 1)
            position = self._offsets[document]
        return window


def sequential_windows(split: TokenSplit, context: int, batch_size: int, eot_id: int) -> Iterator[Batch]:
    """A whole split for evaluation, in order: each token is predicted once, the first one from an end-of-text token.

    The last window may be short; it comes alone, filled up with -100 targets that count for nothing.
    """
    for start in range(0, split.num_tokens, context * batch_size):
        stop = min(start + context * batch_size, split.num_tokens)
        before = split.tokens(start - 1, start) if start else np.array([eot_id])
        yield _rows(np.concatenate([before, split.tokens(start, stop)]), context, eot_id)


def windows_of_ids(ids: np.ndarray, context: int, batch_size: int, eot_id: int) -> Iterator[Batch]:
    """Like `sequential_windows`, over token ids in memory, of which the first is given and not predicted."""
    for start in range(0, len(ids) - 1, context * batch_size):
        yield _rows(ids[start : start + context * batch_size + 1], context, eot_id)


def sliding_windows(ids: np.ndarray, context: int, stride: int, batch_size: int, eot_id: int) -> Iterator[Batch]:
    """Windows that overlap: each predicts its last `stride` tokens, and sees `context` less that many before them.

    Args:
        ids: Token ids, of which the first is given and not predicted.
    """
    starts = range(0, len(ids) - 1, stride)
    for first in range(0, len(starts), batch_size):
        some = starts[first : first + batch_size]
        inputs = np.full((len(some), context), eot_id, dtype=np.int64)
        targets = np.full((len(some), context), IGNORED, dtype=np.int64)
        for row, start in enumerate(some):
            stop = min(start + stride, len(ids) - 1)
            begin = max(0, stop - context)
            inputs[row, : stop - begin] = ids[begin:stop]
            targets[row, start - begin : stop - begin] = ids[start + 1 : stop + 1]
        yield Batch.of(inputs, targets, eot_id)


def _rows(ids: np.ndarray, context: int, eot_id: int) -> Batch:
    """(N + 1) ids -> rows of `context` inputs and targets; the last row is filled up."""
    num_predicted = len(ids) - 1
    num_rows = -(-num_predicted // context)
    inputs = np.full(num_rows * context, ids[-1], dtype=np.int64)
    targets = np.full(num_rows * context, IGNORED, dtype=np.int64)
    inputs[:num_predicted], targets[:num_predicted] = ids[:-1], ids[1:]
    return Batch.of(inputs.reshape(num_rows, context), targets.reshape(num_rows, context), eot_id)
