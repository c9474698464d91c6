"""Texts with the same beginning as one row: the beginning is computed once, and each ending sees it and itself.

Shapes: H query heads, K key-value heads, D head size, T tokens of all groups in the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inkling.models import KVCache, LanguageModel, attend


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

    Args:
        groups: Each with a token in its beginning and in its endings, and short enough for the model.
        max_row_tokens: Tokens that are computed together, roughly.
    """
    found: list[list[EndingScore]] = []
    row: list[Group] = []
    for group in groups:
        if row and sum(one.num_tokens for one in row) + group.num_tokens > max_row_tokens:
            found += _score_row(model, row, max_logits)
            row = []
        row.append(group)
    return found + (_score_row(model, row, max_logits) if row else [])


def _score_row(model: LanguageModel, groups: Sequence[Group], max_logits: int) -> list[list[EndingScore]]:
    ids: list[int] = []
    places: list[int] = []  # where in the row stands what predicts each token that is asked for
    targets: list[int] = []
    for group in groups:
        last = len(ids) + len(group.beginning) - 1
        ids += group.beginning
        for ending in group.endings:
            places += [last, *range(len(ids), len(ids) + len(ending) - 1)]
            targets += ending
            ids += ending[:-1]
    device = model.device
    hidden = model.hidden(torch.tensor([ids], device=device), cache=_BranchStep(groups, device))[0]  # (1, T) -> (T, C)
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


class _BranchStep(KVCache):
    """The cache of one row of groups; it keeps nothing."""

    def __init__(self, groups: Sequence[Group], device: torch.device) -> None:
        places = []
        for group in groups:
            start = len(group.beginning)
            places.append(torch.arange(start))
            places += [torch.arange(start, start + len(ending) - 1) for ending in group.endings]
        self._places = torch.cat(places).to(device)
        self._sizes = [group.num_tokens for group in groups]
        self._starts = [len(group.beginning) for group in groups]
        self._masks = [_mask(group).to(device) for group in groups]

    def slots(self, num_tokens: int) -> Tensor:
        """The place of each token in its own text, (T)."""
        return self._places

    def positions(self, num_tokens: int) -> Tensor:
        """The same."""
        return self._places

    def mask(self, num_tokens: int) -> Tensor | None:
        """Each group has its own."""
        return None

    def is_text(self, num_tokens: int) -> Tensor | None:
        """All tokens are."""
        return None

    def advance(self, num_tokens: int) -> None:
        """Nothing follows."""

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend group by group, beginnings apart from endings: (1, H, T, D), (1, K, T, D) twice -> (1, T, H·D)."""
        found = []
        parts = zip(*(torch.split(x, self._sizes, dim=2) for x in (queries, keys, values)), strict=True)
        for (q, k, v), start, own in zip(parts, self._starts, self._masks, strict=True):
            found.append(attend(q[:, :, :start], k[:, :, :start], v[:, :, :start], None))
            if len(own):
                found.append(attend(q[:, :, start:], k, v, own))
        return torch.cat(found, dim=1)


def _mask(group: Group) -> Tensor:
    """Whom the tokens of endings see, (tokens of endings, T): the beginning, and earlier tokens of the same ending."""
    start = len(group.beginning)
    branch = torch.cat([torch.zeros(start), *(torch.full((len(e) - 1,), n + 1.0) for n, e in enumerate(group.endings))])
    causal = torch.ones(len(branch), len(branch), dtype=torch.bool).tril()
    return (causal & ((branch[None] == 0) | (branch[None] == branch[:, None])))[start:]
