"""Muon for the matrices of the blocks, AdamW for everything else, in one optimizer.

Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by the nearest
semi-orthogonal matrix, so that every direction is learnt at the same speed. The orthogonalisation is Newton-Schulz with
the step-wise optimal polynomials of Polar Express (arXiv:2505.16932).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from inkling.config import Field, Section
from inkling.optim._groups import Group

# Coefficients (a, b, c) of p(X) = aX + b(XXᵀ)X + c(XXᵀ)²X, one row a step: Polar Express for singular values in
# [0.001, 1], with its safety factor of 1.01.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

WEIGHT_DECAY = 0.1


class Config(Section):
    """Muon on the block matrices, AdamW on the rest."""

    lr: float = Field(0.02, gt=0)
    """Peak learning rate of the matrices: about the size of the change of a singular value in a step."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Nesterov momentum, reached from 0.85 over `momentum_warmup` steps."""
    momentum_warmup: int = Field(300, ge=0)
    """Steps over which momentum rises."""
    weight_decay: float | None = Field(None, ge=0)
    """Decoupled decay of the matrices, per unit of learning rate. Default: 0.1, but 1.2 in pretraining a large model
    on a small text that is passed over many times."""
    embedding_lr: float = Field(0.05, gt=0)
    """Peak AdamW learning rate of the embeddings, also where they are the head."""
    head_lr: float = Field(0.004, gt=0)
    """Peak AdamW learning rate of an untied head."""
    vector_lr: float = Field(0.01, gt=0)
    """Peak AdamW learning rate of gains and biases."""
    beta1: float = Field(0.8, ge=0, lt=1)
    """AdamW: decay of the mean of the gradient."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW: decay of the mean of its square."""
    eps: float = Field(1e-10, gt=0)
    """AdamW: keeps the division finite."""
    orthogonalize_in: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the orthogonalisation. A direction needs few digits; auto takes that of the forward pass."""

    def at_precision(self, precision: str) -> Config:
        """These settings, auto filled in for a forward pass in this precision."""
        if self.orthogonalize_in != "auto":
            return self
        return self.model_copy(update={"orthogonalize_in": "fp32" if precision == "fp32" else "bf16"})


def build(groups: list[Group], config: Config) -> torch.optim.Optimizer:
    """The optimizer. Each of its `param_groups` has a `base_lr`, which a schedule multiplies."""
    return Muon(groups, config)


class Muon(torch.optim.Optimizer):
    """Matrices by Muon, the rest by torch's AdamW step. State per matrix: one momentum buffer, half of AdamW's."""

    def __init__(self, groups: list[Group], config: Config) -> None:
        rates = {
            "matrices": config.lr,
            "embeddings": config.embedding_lr,
            "head": config.head_lr,
            "vectors": config.vector_lr,
        }
        decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
        param_groups: list[dict[str, Any]] = [
            {
                "params": group.parameters,
                "role": group.role,
                "base_lr": rates[group.role],
                "lr": rates[group.role],
                "weight_decay": decay if group.role == "matrices" else 0.0,
            }
            for group in groups
        ]
        super().__init__(param_groups, {})
        self._config = config
        self._precision = torch.bfloat16 if config.orthogonalize_in == "bf16" else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            if group["role"] == "matrices":
                self._step_matrices(with_gradient, group)
            else:
                self._step_adamw(with_gradient, group)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for shape, matrices in by_shape.items():  # equal shapes go through one batched product
            momenta = torch.stack([self._momentum(p).flatten(1) for p in matrices])  # a convolution is a matrix too
            updates = orthogonalize(momenta, self._precision)
            scale = max(1, shape[0] / shape[1:].numel()) ** 0.5
            for parameter, update in zip(matrices, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The Nesterov momentum of the gradient, whose state moves on by one step."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["momentum"] = torch.zeros_like(parameter)
        share = min(state["step"].item() / self._config.momentum_warmup, 1) if self._config.momentum_warmup else 1
        momentum = 0.85 + share * (self._config.momentum - 0.85)
        state["step"] += 1
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)

    def _step_adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=self._config.beta1,
            beta2=self._config.beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=self._config.eps,
            maximize=False,
        )


def orthogonalize(matrices: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrix of each: (N, rows, columns) -> the same shape, singular values near 1.

    Works on the smaller side of the matrix, in `precision`.
    """
    x = matrices.to(precision)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT  # (N, m, m)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a, alpha=1)
    return x.mT if tall else x


def flops_share(block_matrices: Iterable[Sequence[int]], tokens_per_step: int) -> float:
    """Muon's work beside that of the matrix products of the blocks: 0.1 means a tenth more.

    A step of Newton-Schulz on an m × n matrix, m the smaller, takes 4 m² n + 2 m³ operations; forward and backward take
    6 m n for each token.
    """
    newton_schulz = products = 0
    for rows, columns in block_matrices:
        m, n = sorted((rows, columns))
        newton_schulz += len(POLAR_EXPRESS) * (4 * m * m * n + 2 * m**3)
        products += 6 * m * n * tokens_per_step
    return newton_schulz / products
