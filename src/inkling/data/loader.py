"""From shards to batches. Stateless: what a step sees is a function of `(seed, step)`, so resuming needs no state.

Letters in shapes: B batch, T context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from inkling.data.shards import TokenSplit
from inkling.errors import DataError

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
    partial window. Windows are visited in a random order too.

    Args:
        split: The training tokens.
        context: T.
        batch_size: B.
        seed: Of the order and the phases.
        eot_id: End-of-text token, which separates documents.
    """

    def __init__(self, split: TokenSplit, *, context: int, batch_size: int, seed: int, eot_id: int) -> None:
        self.windows_per_epoch = split.num_tokens // context
        if self.windows_per_epoch == 0:
            raise DataError(
                f"the training text has {split.num_tokens:,} tokens, less than one context of {context:,}. "
                "Lower --context or prepare more text"
            )
        if batch_size > self.windows_per_epoch:
            raise DataError(
                f"the training text has {self.windows_per_epoch:,} windows of {context:,} tokens, less than a batch of "
                f"{batch_size:,}. Lower --batch-size to {self.windows_per_epoch:,} or --context, or prepare more text"
            )
        self.split = split
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.eot_id = eot_id
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)  # a batch may span two

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
        windows = np.stack([self._window(*divmod(number, self.windows_per_epoch)) for number in numbers])
        return Batch.of(windows[:, :-1], windows[:, 1:], self.eot_id)  # (B, T + 1) -> (B, T) twice

    def _window(self, epoch: int, number: int) -> np.ndarray:
        """T + 1 token ids of one window."""
        return self._epoch(epoch).read(number, self.context)

    def _make_epoch(self, epoch: int) -> _Epoch:
        return _Epoch(self.split, np.random.default_rng((self.seed, epoch)), self.windows_per_epoch)


class _Epoch:
    """One pass over the text: order of documents, phase of the stream, order of windows."""

    def __init__(self, split: TokenSplit, random: np.random.Generator, num_windows: int) -> None:
        self._split = split
        starts = np.concatenate([[0], split.document_ends[:-1]])
        order = random.permutation(split.num_documents)
        self._starts = starts[order]  # where each document of the stream begins in the split
        lengths = split.document_ends[order] - self._starts
        self._offsets = np.concatenate([[0], np.cumsum(lengths)])  # where it begins in the stream
        self._phase = int(random.integers(split.num_tokens))
        self._windows = random.permutation(num_windows)

    def read(self, number: int, context: int) -> np.ndarray:
        """`context` + 1 tokens of the window that is visited as number `number`."""
        position = (self._phase + int(self._windows[number]) * context) % self._split.num_tokens
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


def _rows(ids: np.ndarray, context: int, eot_id: int) -> Batch:
    """(N + 1) ids -> rows of `context` inputs and targets; the last row is filled up."""
    num_predicted = len(ids) - 1
    num_rows = -(-num_predicted // context)
    inputs = np.full(num_rows * context, ids[-1], dtype=np.int64)
    targets = np.full(num_rows * context, IGNORED, dtype=np.int64)
    inputs[:num_predicted], targets[:num_predicted] = ids[:-1], ids[1:]
    return Batch.of(inputs.reshape(num_rows, context), targets.reshape(num_rows, context), eot_id)
