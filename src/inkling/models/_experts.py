"""Mixtures of experts: each token goes through a few of many feed-forward layers.

Shazeer et al. 2017 (arXiv 1701.06538); dropless: every expert takes all tokens that were sent to it (Gale et al. 2022,
arXiv 2211.15841).

Shapes: B batch, T time, C hidden, N tokens, E experts, k experts of a token, I width of an expert, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.models._grouped import grouped_product, mixed, sent
from inkling.models._layers import SwiGLU
from inkling.models._scaled_dot import without_autocast

_ROWS = 64
_FEW = 4
"""Up to this many tokens per expert, when nothing is learnt, only experts are asked that somebody was sent to."""
_LEAST_ROWS = 16
"""An expert's tokens are filled up to a multiple of this: their bits then do not depend on how many others it has."""


@dataclass(frozen=True)
class Routing:
    """What a router decided in one forward pass.

    Attributes:
        logits: (N, E).
        chosen: Experts of each token, (N, k).
        weights: Of their outputs, (N, k).
    """

    logits: Tensor
    chosen: Tensor
    weights: Tensor

    def counts(self) -> Tensor:
        """Tokens of each expert, (E)."""
        return F.one_hot(self.chosen.flatten(), self.logits.shape[1]).sum(dim=0)


class Router(nn.Module):
    """Chooses the experts of each token by one score per expert, in fp32 whatever surrounds it.

    Its matrix is never packed: it is small, and what it decides is yes or no.

    Args:
        normalise: Let the weights of the chosen experts add up to 1.
        scale: Factor of the weights.
        score: What a score is made of a logit by.
        is_biased: Add a bias to each score when choosing, and not when weighting: Wang et al. 2024 (arXiv 2408.15664).

    Attributes:
        load: Tokens of each expert in training since `balance`, (E), where there are biases to move.
    """

    keeps_precision = True

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        top_k: int,
        *,
        normalise: bool,
        scale: float = 1.0,
        score: Literal["softmax", "sigmoid"] = "softmax",
        is_biased: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_experts, hidden_size))
        self.top_k = top_k
        self.normalise = normalise
        self.scale = scale
        self.score = score
        self.e_score_correction_bias = (
            nn.Parameter(torch.zeros(num_experts), requires_grad=False) if is_biased else None
        )
        self.load: Tensor | None = None

    def route(self, x: Tensor) -> Routing:
        """(N, C) -> which experts, and how much of each."""
        with without_autocast(x):
            logits = F.linear(x.float(), self.weight.float())  # (N, C) -> (N, E)
        scores = logits.sigmoid() if self.score == "sigmoid" else logits.softmax(dim=-1)
        bias = self.e_score_correction_bias
        if bias is None:
            weights, chosen = scores.topk(self.top_k, dim=-1)
        else:
            chosen = (scores + bias).topk(self.top_k, dim=-1).indices
            weights = scores.gather(1, chosen)
        if self.normalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routing(logits, chosen, weights if self.scale == 1.0 else weights * self.scale)

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Move the bias of each expert towards an even load, by `rate`, and count anew."""
        assert self.e_score_correction_bias is not None
        assert self.load is not None
        self.e_score_correction_bias.add_((self.load.mean() - self.load).sign(), alpha=rate)
        self.load = None


class Mixture(nn.Module):
    """Experts and their router, in the place of one feed-forward layer.

    Args:
        experts: Feed-forward layers of one shape: `SwiGLU`, or what has its three matrices.

    Attributes:
        last: What was decided in the last forward pass in training mode.
    """

    def __init__(self, gate: Router, experts: Sequence[SwiGLU]) -> None:
        super().__init__()
        self.gate = gate
        self.experts = nn.ModuleList(experts)
        self.last: Routing | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        tokens = x.flatten(0, 1)  # (N, C)
        routing = self.gate.route(tokens)
        if self.training and torch.is_grad_enabled():
            self.last = routing
            if self.gate.e_score_correction_bias is not None:
                counts = routing.counts().float()
                self.gate.load = counts if self.gate.load is None else self.gate.load + counts
        many = len(tokens) * routing.chosen.shape[1] > _FEW * len(self.experts)
        if torch.compiler.is_exporting():
            output = self._everyone(tokens, routing)
        elif self._can_group() and (torch.is_grad_enabled() or (many and x.device.type != "cpu")):
            output = self._together(tokens, routing)
        else:
            output = self._one_by_one(tokens, routing)
        return output.view_as(x)

    def _can_group(self) -> bool:
        """Whether all matrices are plain: adapters and packed numbers have products of their own."""
        return all(type(matrix) is nn.Linear for expert in self.experts for matrix in expert.children())

    def _together(self, tokens: Tensor, routing: Routing) -> Tensor:
        """Grouped products over copies of the tokens side by side by expert."""
        slots, sources, ends = _places(routing)
        dtype = tokens.dtype
        if not tokens.is_meta and torch.is_autocast_enabled(tokens.device.type):
            dtype = torch.get_autocast_dtype(tokens.device.type)

        def cast(*matrices: Any) -> Tensor:
            return torch.cat([matrix.weight.to(dtype) for matrix in matrices])

        first = [cast(expert.gate_proj, expert.up_proj) for expert in self.experts]  # (2·I, C) each
        last = [cast(expert.down_proj) for expert in self.experts]  # (C, I) each
        copies = sent(tokens.to(dtype), slots, sources)  # (N, C) -> (S, C)
        gate, up = grouped_product(copies, first, ends, False).chunk(2, dim=1)  # (S, I) twice
        outputs = grouped_product(F.silu(gate) * up, last, ends, False)  # (S, C)
        total: Tensor = mixed(outputs, routing.weights.to(dtype), slots, sources).to(tokens.dtype)
        return total

    def _everyone(self, tokens: Tensor, routing: Routing) -> Tensor:
        """All tokens through all experts, most of them for nothing: what a graph without decisions can say."""
        weights = torch.zeros_like(routing.logits).scatter(1, routing.chosen, routing.weights)  # (N, E)
        outputs = [expert(tokens) * weights[:, n : n + 1] for n, expert in enumerate(self.experts)]
        return torch.stack(outputs).sum(dim=0)

    def _one_by_one(self, tokens: Tensor, routing: Routing) -> Tensor:
        """Without learning as fast on a CPU, and a token's bits do not depend on where others go."""
        total = torch.zeros_like(tokens)
        step = min(_LEAST_ROWS, len(tokens))
        for number in sorted(set(routing.chosen.flatten().tolist())):
            rows, places = (routing.chosen == number).nonzero(as_tuple=True)
            filled = F.pad(rows, (0, -len(rows) % step))
            output = self.experts[number](tokens[filled])[: len(rows)]
            output = output * routing.weights[rows, places, None].to(tokens.dtype)
            total = total.index_add(0, rows, output.to(tokens.dtype))
        return total


def _places(routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    """The slots of each token, (N, k), the token of each slot, (S), and where the slots of each expert end, (E).

    The slots of an expert are a multiple of 64 where there are many: a kernel is made for each number of rows that a
    product has, and in bf16 on a CPU, other numbers cost up to two fifths more.
    """
    (N, k), E = routing.chosen.shape, routing.logits.shape[1]
    step = _ROWS if N * k >= 4 * _ROWS * E else 1
    num_slots = N * k + E * (step - 1)
    counts = routing.counts()
    room = (counts + step - 1) // step * step
    ends = room.cumsum(0)
    order = routing.chosen.flatten().argsort(stable=True)
    shift = (ends - room) - (counts.cumsum(0) - counts)  # of an expert's slots against places in that order
    in_order = torch.arange(N * k, device=order.device) + shift[routing.chosen.flatten()[order]]
    slots = torch.empty_like(order).scatter_(0, order, in_order).view(N, k)
    sources = order.new_zeros(num_slots).scatter_(0, in_order, order // k)
    return slots, sources, torch.cat((ends[:-1], ends.new_full((1,), num_slots)))


def load_balancing_loss(routing: Routing) -> Tensor:
    """Switch Transformer's (Fedus et al. 2021, arXiv 2101.03961): k where tokens are spread evenly, more elsewhere.

    E · Σ over experts of the share of tokens that was sent there · the mean probability of being sent there.
    """
    N, E = routing.logits.shape
    shares = routing.counts() / N
    return E * (shares * routing.logits.softmax(dim=-1).mean(dim=0)).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Mean square of the logits' log-sum-exp, which keeps them small (Zoph et al. 2022, arXiv 2202.08906)."""
    return routing.logits.logsumexp(dim=-1).square().mean()
