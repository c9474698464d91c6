"""Attention over texts of which several begin alike: a beginning is computed once, and what follows sees it and itself.

Shapes: H query heads, K key-value heads, D head size, T tokens of the row, G beginnings of up to P tokens, S branches
of up to L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inkling.models._cache import PlacedTokens
from inkling.models._scaled_dot import PLAIN, Scoring, attend


class Branches(PlacedTokens):
    """The cache of one pass over one row, (1, T): beginnings one after the other, then branches. It keeps nothing.

    Gradients pass through. Keys of a beginning are copied for each of its branches, in one layer at a time.

    Args:
        beginnings: Tokens of each, one at least.
        branches: Of each, the number of its beginning, and its tokens, one at least.
    """

    def __init__(
        self, beginnings: Sequence[int], branches: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
    ) -> None:
        ends = [(beginnings[number], beginnings[number] + size) for number, size in branches]
        places = [*(torch.arange(size) for size in beginnings), *(torch.arange(start, end) for start, end in ends)]
        super().__init__(torch.cat(places).to(device))
        self._sizes = [sum(beginnings), sum(size for _, size in branches)]
        self._before = self._predecessors(beginnings, branches).to(device)
        self._stems = _Rows(beginnings, device)
        self._rests = _Rows([size for _, size in branches], device) if branches else None
        if not branches:
            return
        self._stem_of = torch.tensor([number for number, _ in branches], device=device)  # (S)
        starts = torch.tensor([start for start, _ in ends])[:, None]  # (S, 1)
        P, L = max(beginnings), max(size for _, size in branches)
        inside = (torch.arange(P) < starts)[:, None, :].expand(-1, L, -1)  # (S, L, P)
        own = torch.ones(L, L, dtype=torch.bool).tril().expand(len(branches), -1, -1)
        self._mask = torch.cat((inside, own), dim=-1)[:, None].to(device)  # (S, 1, L, P + L)
        queries = starts + torch.arange(L)  # (S, L): places
        keys = torch.cat((torch.arange(P).expand(len(branches), -1), queries), dim=1)
        self._distance = (queries[:, :, None] - keys[:, None, :])[:, None].to(device)  # as the mask

    @staticmethod
    def _predecessors(beginnings: Sequence[int], branches: Sequence[tuple[int, int]]) -> Tensor:
        """Where in the row the token before each one is, (T); -1: it begins its text."""
        before = torch.arange(-1, sum(beginnings) + sum(size for _, size in branches) - 1)
        starts = list(itertools.accumulate(beginnings, initial=0))
        before[starts[:-1]] = -1
        at = starts[-1]
        for number, size in branches:
            before[at] = starts[number + 1] - 1
            at += size
        return before

    def earlier(self, name: str, x: Tensor, count: int) -> list[Tensor]:
        """What stood 1 to `count` tokens before each in its text, (1, T, C) each."""
        found, index = [], self._before
        for _ in range(count):
            found.append(x[:, index] * (index >= 0)[:, None])
            index = torch.where(index >= 0, self._before[index], -1)
        return found

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scoring: Scoring = PLAIN,
    ) -> Tensor:
        """Beginnings side by side, then branches: (1, H, T, D), (1, K, T, D) twice -> (1, T, H·D)."""
        parts = [torch.split(x[0].transpose(0, 1), self._sizes) for x in (queries, keys, values)]  # -> (T, H or K, D)
        q, k, v = (self._stems.side_by_side(stems).transpose(1, 2) for stems, _ in parts)  # -> (G, H or K, P, D)
        found = [self._stems.one_after_another(attend(q, k, v, None, scoring))]  # (G, P, H·D) -> (tokens, H·D)
        if self._rests is not None:
            own = [self._rests.side_by_side(rests).transpose(1, 2) for _, rests in parts]  # (S, H or K, L, D)
            keys, values = (
                torch.cat((x.index_select(0, self._stem_of), y), dim=2) for x, y in zip((k, v), own[1:], strict=True)
            )
            mixed = attend(own[0], keys, values, self._mask, scoring, self._distance)
            found.append(self._rests.one_after_another(mixed))
        return torch.cat(found)[None]


class _Rows:
    """Between texts one after the other, (tokens, …), and side by side, (texts, longest, …), filled up with zeros."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str) -> None:
        sizes = torch.tensor(lengths)
        slots = torch.arange(max(lengths))
        inside = slots < sizes[:, None]  # (texts, longest)
        starts = (sizes.cumsum(0) - sizes)[:, None]
        self._shape = inside.shape
        self._filled = torch.where(inside, starts + slots, sum(lengths)).flatten().to(device)
        self._inside = inside.flatten().nonzero()[:, 0].to(device)

    def side_by_side(self, x: Tensor) -> Tensor:
        """(tokens, …) -> (texts, longest, …)."""
        taken: Tensor = _Take.apply(x, self._filled, self._inside)  # type: ignore[no-untyped-call]
        return taken.view(*self._shape, *x.shape[1:])

    def one_after_another(self, x: Tensor) -> Tensor:
        """(texts, longest, …) -> (tokens, …)."""
        taken: Tensor = _Take.apply(x.flatten(0, 1), self._inside, self._filled)  # type: ignore[no-untyped-call]
        return taken


class _Take(torch.autograd.Function):
    """Rows by number, one past the last being zeros; the gradient is taken back in the same way.

    No row is taken twice: adding up gradients by index, as `index_select` has to, is slow on CPUs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        """(n, …), (m) -> (m, …)."""
        ctx.save_for_backward(back)
        return _taken(x, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """(m, …) -> (n, …)."""
        (back,) = ctx.saved_tensors
        return _taken(gradients[0], back), None, None


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    return torch.cat((x, x.new_zeros(1, *x.shape[1:]))).index_select(0, rows)
