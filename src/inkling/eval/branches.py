"""Texts with the same beginning as one row: the beginning is computed once, and each ending sees it and itself.

Shapes: H query heads, K key-value heads, D head size, T tokens of all groups in the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inkling.models import PLAIN, LanguageModel, PlacedTokens, Scoring, attend


@dataclass(frozen=True)
class Group:
    """A beginning, and what may follow it: token ids."""

    beginning: Sequence[int]
    endings: Sequence[Sequence[int]]

    @property
    def num_tokens(self) -> int:
        """In the row; the last token of an ending predicts nothing that is asked for, and is left out."""
        return len(self.beginning) + sum(len(ending) - 1 for ending in self.endings)


@dataclass(frozen=True)
class EndingScore:
    """Attributes:
    nats: Logarithm of the probability of an ending after its beginning.
    is_greedy: Whether each of its tokens is the likeliest.
    """

    nats: float
    is_greedy: bool


@torch.inference_mode()
def score_groups(
    model: LanguageModel, groups: Sequence[Group], *, max_row_tokens: int = 2048, max_logits: int = 1 << 24
) -> list[list[EndingScore]]:
    """How likely each ending of each group is.

    Neighbours whose beginnings begin alike, with the same examples, say, share these tokens too.

    Args:
        groups: Each with a token in its beginning and in its endings, and short enough for the model.
        max_row_tokens: Tokens that are computed together, roughly.
    """
    found: list[list[EndingScore]] = []
    row: list[Group] = []
    for group in groups:
        if row and _num_tokens([*row, group]) > max_row_tokens:
            found += _score_row(model, row, max_logits)
            row = []
        row.append(group)
    return found + (_score_row(model, row, max_logits) if row else [])


def _num_shared(groups: Sequence[Group]) -> int:
    """Tokens that all beginnings begin with, but for the last token of each; 0 where that is hardly worth it."""
    if len(groups) < 2:
        return 0
    first = groups[0].beginning
    count = min(len(group.beginning) for group in groups) - 1
    for group in groups[1:]:
        count = next((n for n in range(count) if group.beginning[n] != first[n]), count)
    return count if count >= _LEAST_SHARED else 0


def _num_tokens(groups: Sequence[Group]) -> int:
    return sum(group.num_tokens for group in groups) - (len(groups) - 1) * _num_shared(groups)


_LEAST_SHARED = 16


def _score_row(model: LanguageModel, groups: Sequence[Group], max_logits: int) -> list[list[EndingScore]]:
    shared = _num_shared(groups)
    ids: list[int] = list(groups[0].beginning[:shared])
    places: list[int] = []  # where in the row stands what predicts each token that is asked for
    targets: list[int] = []
    for group in groups:
        ids += group.beginning[shared:]
        last = len(ids) - 1
        for ending in group.endings:
            places += [last, *range(len(ids), len(ids) + len(ending) - 1)]
            targets += ending
            ids += ending[:-1]
    device = model.device
    step = _BranchStep(groups, shared, device)
    hidden = model.hidden(torch.tensor([ids], device=device), cache=step)[0]  # (1, T) -> (T, C)
    rows = max(1, max_logits // model.config.vocab_size)
    wanted, logprobs, greedy = torch.tensor(targets, device=device), [], []
    asked = hidden[torch.tensor(places, device=device)]
    for part, token in zip(torch.split(asked, rows), torch.split(wanted, rows), strict=True):
        logits = model.logits(part).float()
        logprobs.append(logits.gather(1, token[:, None])[:, 0].double() - logits.logsumexp(1).double())
        greedy.append(logits.argmax(1) == token)
    lengths = [len(ending) for group in groups for ending in group.endings]
    scores = iter(
        EndingScore(float(nats.sum()), bool(hit.all()))
        for nats, hit in zip(
            torch.split(torch.cat(logprobs).cpu(), lengths), torch.split(torch.cat(greedy).cpu(), lengths), strict=True
        )
    )
    return [[next(scores) for _ in group.endings] for group in groups]


class _BranchStep(PlacedTokens):
    """The cache of one row: what all share, then the rest of each group; it keeps nothing.

    Args:
        shared: Tokens that all beginnings begin with.
    """

    def __init__(self, groups: Sequence[Group], shared: int, device: torch.device) -> None:
        places = [torch.arange(shared)]
        for group in groups:
            start = len(group.beginning)
            endings = [torch.arange(start, start + len(ending) - 1) for ending in group.endings]
            places.append(torch.cat([torch.arange(shared, start), *endings]))
        super().__init__(torch.cat(places).to(device))
        self._distances = [(own[:, None] - torch.cat([places[0], own])[None]).to(device) for own in places[1:]]
        self._shared = shared
        self._sizes = [shared, *(group.num_tokens - shared for group in groups)]
        self._starts = [len(group.beginning) - shared for group in groups]
        self._masks = [_mask(group, shared).to(device) for group in groups]

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scoring: Scoring = PLAIN,
    ) -> Tensor:
        """Attend group by group, beginnings apart from endings: (1, H, T, D), (1, K, T, D) twice -> (1, T, H·D)."""
        parts = zip(*(torch.split(x, self._sizes, dim=2) for x in (queries, keys, values)), strict=True)
        q, first_keys, first_values = next(parts)
        found = [attend(q, first_keys, first_values, None, scoring)] if self._shared else []
        for (q, k, v), start, own, distance in zip(parts, self._starts, self._masks, self._distances, strict=True):
            if self._shared:
                k, v = torch.cat([first_keys, k], dim=2), torch.cat([first_values, v], dim=2)
                found.append(attend(q, k, v, own, scoring, distance))
                continue
            found.append(attend(q[:, :, :start], k[:, :, :start], v[:, :, :start], None, scoring))
            if len(own) > start:
                found.append(attend(q[:, :, start:], k, v, own[start:], scoring, distance[start:]))
        return torch.cat(found, dim=1)


def _mask(group: Group, shared: int) -> Tensor:
    """Whom the tokens after the shared ones see, (T - shared, T): the beginning, and earlier ones of an ending."""
    start = len(group.beginning)
    branch = torch.cat([torch.zeros(start), *(torch.full((len(e) - 1,), n + 1.0) for n, e in enumerate(group.endings))])
    causal = torch.ones(len(branch), len(branch), dtype=torch.bool).tril()
    return (causal & ((branch[None] == 0) | (branch[None] == branch[:, None])))[shared:]
