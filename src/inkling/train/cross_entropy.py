"""Cross-entropy without the logits of all positions at once: the largest tensor of a step is never built.

Loss and gradients of a chunk of positions are computed together in the forward pass, as in Liger (Hsu et al. 2024,
arXiv:2410.10989) and Cut Your Losses (Wijmans et al. 2024, arXiv:2411.09009), here with torch's own matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.data.loader import IGNORED

CHUNK_BYTES = 32 << 20
"""Of the logits of a chunk in fp32: small enough for the last cache of a CPU, large enough for a fast product."""


def summed_cross_entropy(hidden: Tensor, head_weight: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Summed nats of predicting `targets`, a scalar.

    Args:
        hidden: (N, C) hidden states after the last norm.
        head_weight: (V, C).
        targets: (N); -100 is not predicted.
        softcap: Logits stay below this: cap · tanh(logit / cap).
    """
    rows = max(1, CHUNK_BYTES // (4 * len(head_weight)))
    if rows >= len(hidden) or not torch.is_grad_enabled():
        parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        return torch.stack([_nats(part, head_weight, some, softcap) for part, some in parts]).sum()
    loss: Tensor = _Chunked.apply(hidden, head_weight, targets, rows, softcap)  # type: ignore[no-untyped-call]
    return loss


def _nats(hidden: Tensor, head_weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    logits = F.linear(hidden, head_weight).float()
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


class _Chunked(torch.autograd.Function):
    """Gradients for hidden states and head are made chunk by chunk, and only scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head_weight: Tensor, targets: Tensor, rows: int, softcap: float | None
    ) -> Tensor:
        loss = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        head_learns = ctx.needs_input_grad[1]
        head_grad = torch.zeros_like(head_weight, dtype=torch.float32) if head_learns else None
        for start in range(0, len(hidden), rows):
            part, some = hidden[start : start + rows], targets[start : start + rows]
            predicted = some != IGNORED
            at = torch.where(predicted, some, 0)[:, None]
            logits = F.linear(part, head_weight)  # in the precision of autocast
            narrow = logits.dtype
            logits = logits.float()
            slope = None
            if softcap is not None:
                tanh = (logits / softcap).tanh_()
                logits, slope = softcap * tanh, 1 - tanh.square()
            normaliser = logits.logsumexp(dim=1, keepdim=True)
            loss += ((normaliser - logits.gather(1, at))[:, 0] * predicted).sum()
            logits.sub_(normaliser).exp_()  # now probabilities, and then the gradient of the logits
            logits.scatter_add_(1, at, torch.full_like(at, -1, dtype=logits.dtype))
            if slope is not None:
                logits.mul_(slope)
            grad = logits.mul_(predicted[:, None]).to(narrow)
            hidden_grad[start : start + rows] = grad @ head_weight.to(narrow)
            if head_grad is not None:
                head_grad += grad.T @ part.to(narrow)
        ctx.save_for_backward(hidden_grad, None if head_grad is None else head_grad.to(head_weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden_grad, head_grad = ctx.saved_tensors
        scaled = None if head_grad is None else head_grad * grad_outputs[0]
        return hidden_grad * grad_outputs[0], scaled, None, None, None
