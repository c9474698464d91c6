"""Sequences of tokens, some of them to be learnt, laid out as micro-batches; for every stage but pretraining.

Letters in shapes: B rows, T time, N learnt tokens, S sequences, C hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from inkling.data.pictures import to_pixels
from inkling.models import Branches, LanguageModel, SeeingModel

LOGITS_BYTES = 64 << 20
"""Of the logits that are held at once."""
PACKING_GAIN = 1.3
"""Packing is worth its mask where rows of one sequence each would take so many times the room."""


@dataclass(frozen=True)
class Sampling:
    """The distribution that tokens are drawn from: of the `top_k` likeliest (0: of all), at a temperature."""

    temperature: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class Tokens:
    """Tokens, and which of them are learnt.

    Attributes:
        ids: The end-of-text token at the front included.
        is_learnt: Of each token; never of the first, which nothing predicts.
        pictures: Give bytes, (S, S, 3) each, when called; in the order of their image tokens.
    """

    ids: Sequence[int]
    is_learnt: Sequence[bool]
    pictures: Sequence[Callable[[], np.ndarray]] = ()

    @property
    def num_learnt(self) -> int:
        """Tokens that are learnt."""
        return sum(self.is_learnt)


@dataclass(frozen=True)
class Sequences:
    """A micro-batch of whole sequences.

    Attributes:
        input_ids: (B, T).
        segment_ids: (B, T), or None: attention stays inside equal numbers.
        places: (N) where the learnt tokens are predicted, in the flattened (B, T).
        learnt_ids: (N) the tokens themselves.
        owners: (N) the sequence that each belongs to.
        num: S.
        pixels: (P, 3, S, S) of the pictures in them, or None, in the order of their image tokens.
        branches: Who sees whom, where sequences share their beginnings.
    """

    input_ids: Tensor
    segment_ids: Tensor | None
    places: Tensor
    learnt_ids: Tensor
    owners: Tensor
    num: int
    pixels: Tensor | None = None
    branches: Branches | None = None

    @property
    def lengths(self) -> Tensor:
        """Learnt tokens of each sequence, (S)."""
        return torch.bincount(self.owners, minlength=self.num)


def lay_out(sequences: Sequence[Tokens], *, context: int, pack: bool, device: torch.device) -> Sequences:
    """Sequences as rows: one in each, filled up behind, or several one after the other, which do not see each other.

    Behind a sequence nothing sees the filling, so that rows of one sequence need no mask.
    """
    rows = _packed(sequences, context) if pack else [[number] for number in range(len(sequences))]
    longest = max(sum(len(sequences[number].ids) - 1 for number in row) for row in rows)
    input_ids = np.zeros((len(rows), longest), dtype=np.int64)
    targets = np.zeros((len(rows), longest), dtype=np.int64)
    segments = np.full((len(rows), longest), -1, dtype=np.int64)
    owners = np.full((len(rows), longest), -1, dtype=np.int64)
    for at, row in enumerate(rows):
        start = 0
        for number in row:
            ids = np.asarray(sequences[number].ids, dtype=np.int64)
            learnt = np.asarray(sequences[number].is_learnt, dtype=bool)[1:]
            stop = start + len(learnt)
            input_ids[at, start:stop] = ids[:-1]
            targets[at, start:stop][learnt] = ids[1:][learnt]
            owners[at, start:stop][learnt] = number
            segments[at, start:stop] = number
            start = stop
    places = np.flatnonzero(owners.ravel() >= 0)
    owned = owners.ravel()[places]
    pictures = [read() for row in rows for number in row for read in sequences[number].pictures]
    order = np.argsort(owned, kind="stable")  # sequence by sequence, in the order they were given
    return Sequences(
        torch.from_numpy(input_ids).to(device),
        torch.from_numpy(segments).to(device) if pack else None,
        places=torch.from_numpy(places[order]).to(device),
        learnt_ids=torch.from_numpy(targets.ravel()[places[order]]).to(device),
        owners=torch.from_numpy(owned[order]).to(device),
        num=len(sequences),
        pixels=to_pixels(pictures).to(device) if pictures else None,
    )


def learnt_hidden(model: LanguageModel, batch: Sequences) -> Tensor:
    """Hidden states where learnt tokens are predicted, (N, C)."""
    if batch.pixels is None:
        hidden = model.hidden(batch.input_ids, segment_ids=batch.segment_ids, cache=batch.branches)
    else:
        assert isinstance(model, SeeingModel)
        hidden = model.hidden(batch.input_ids, segment_ids=batch.segment_ids, seen=model.see(batch.pixels))
    return hidden.flatten(0, 1)[batch.places]


def _packed(sequences: Sequence[Tokens], context: int) -> list[list[int]]:
    """Rows of sequences: the longest first, each where it leaves the least room (best-fit decreasing)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(sequences)), key=lambda n: -len(sequences[n].ids)):
        length = len(sequences[number].ids) - 1
        fitting = [at for at in range(len(rows)) if room[at] >= length]
        if fitting:
            at = min(fitting, key=room.__getitem__)
        else:
            rows.append([])
            room.append(max(context, length))
            at = len(rows) - 1
        rows[at].append(number)
        room[at] -= length
    return rows


def packing_pays(sequences: Sequence[Tokens], rows_per_batch: int) -> bool:
    """Whether so many sequences in a micro-batch, sorted by length, would be much filling."""
    lengths = sorted(len(one.ids) for one in sequences)
    batches = [lengths[start : start + rows_per_batch] for start in range(0, len(lengths), rows_per_batch)]
    return sum(len(batch) * batch[-1] for batch in batches) > PACKING_GAIN * sum(lengths)


def in_micro_batches(
    items: Sequence[Sequence[Tokens]],
    max_tokens: int,
    *,
    context: int,
    pack: bool,
    totals: Sequence[int] | None = None,
) -> list[list[int]]:
    """Items, each of one or several sequences, grouped by length so that a micro-batch has about `max_tokens`.

    Args:
        totals: Tokens that are computed for each item, where there is no filling.

    Returns the numbers of the items in each. A micro-batch has one item at least.
    """
    lengths = [max(len(one.ids) for one in item) for item in items]
    is_filled = totals is None and not pack
    totals = totals or [sum(len(one.ids) for one in item) for item in items]
    groups: list[list[int]] = []
    for number in sorted(range(len(items)), key=lambda n: (lengths[n], n)):
        members = [*groups[-1], number] if groups else [number]
        if is_filled:
            size = max(lengths[member] for member in members) * sum(len(items[member]) for member in members)
        else:
            size = sum(totals[member] for member in members)
        if groups and size <= max(max_tokens, context if pack else 0):
            groups[-1] = members
        else:
            groups.append([number])
    return groups


def token_logprobs(
    model: LanguageModel,
    batch: Sequences,
    sampling: Sampling = Sampling(),
    *,
    on_hidden: Callable[[Tensor], None] = lambda hidden: None,
) -> Tensor:
    """Log-probability of each learnt token, (N), in fp32; the logits of few tokens exist at once.

    Args:
        sampling: Of the distribution that is asked for.
        on_hidden: Is given the hidden states that predict the tokens, (N, C).
    """
    hidden = learnt_hidden(model, batch)
    on_hidden(hidden)
    rows = max(1, LOGITS_BYTES // (4 * model.config.vocab_size))
    parts = zip(torch.split(hidden, rows), torch.split(batch.learnt_ids, rows), strict=True)
    return torch.cat([_logprobs_of(model, sampling, part, some, is_only=len(hidden) <= rows) for part, some in parts])


def _logprobs_of(model: LanguageModel, sampling: Sampling, hidden: Tensor, targets: Tensor, *, is_only: bool) -> Tensor:
    """Of some places, (n, C), (n) -> (n); logits are made again in the backward pass where there are more parts."""

    def compute(hidden: Tensor) -> Tensor:
        logits = model.logits(hidden).float() / sampling.temperature
        if 0 < sampling.top_k < logits.shape[-1]:
            least = logits.detach().topk(sampling.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)

    if is_only or not torch.is_grad_enabled():
        return compute(hidden)
    result: Tensor = recompute(compute, hidden, use_reentrant=False)
    return result


def by_sequence(values: Tensor, batch: Sequences) -> Tensor:
    """Sums over the learnt tokens of each sequence, (N) -> (S)."""
    return torch.zeros(batch.num, dtype=values.dtype, device=values.device).index_add(0, batch.owners, values)


class Order:
    """Which items a step sees: a new order each epoch, as a function of the seed and the step alone."""

    def __init__(self, num_items: int, batch_size: int, seed: int) -> None:
        self.num_items = num_items
        self.batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._permutation: list[int] = []

    def items(self, step: int) -> list[int]:
        """The numbers of a step's items."""
        first = step * self.batch_size
        return [self._item(place) for place in range(first, first + self.batch_size)]

    def _item(self, place: int) -> int:
        epoch, within = divmod(place, self.num_items)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self.num_items, generator=generator).tolist()
        return self._permutation[within]


@dataclass
class TokenBudget:
    """How many tokens a micro-batch has, until memory does not suffice for them."""

    tokens: int
    on_halved: Callable[[int], None]

    def halve(self) -> bool:
        """Make micro-batches half as large; false when they are as small as they get."""
        if self.tokens <= 1:
            return False
        self.tokens //= 2
        self.on_halved(self.tokens)
        return True
