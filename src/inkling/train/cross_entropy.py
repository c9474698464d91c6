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
from inkling.models import product_dtype

CHUNK_BYTES = 32 << 20
"""Of the logits of a chunk: small enough for the last cache of a CPU, large enough for a fast product."""
SLICE_BYTES = 2 << 20
"""Of the logits that a CPU holds in fp32 at once: all passes over them find them in its fast caches."""
HEAD_SLICE_BYTES = 8 << 20
"""Of the head's gradient that a CPU adds a product to at once: torch copies what has another type, whole."""


def summed_cross_entropy(hidden: Tensor, head_weight: Tensor, targets: Tensor, softcap: float | None = None) -> Tensor:
    """Summed nats of predicting `targets`, a scalar.

    Args:
        hidden: (N, C) hidden states after the last norm.
        head_weight: (V, C).
        targets: (N); -100 is not predicted.
        softcap: Logits stay below this: cap · tanh(logit / cap).
    """
    if torch.is_grad_enabled():
        loss: Tensor = _Chunked.apply(hidden, head_weight, targets, softcap)  # type: ignore[no-untyped-call]
        return loss
    rows = max(1, CHUNK_BYTES // (4 * len(head_weight)))
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.stack([_nats(part, head_weight, some, softcap) for part, some in parts]).sum()


def _nats(hidden: Tensor, head_weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    logits = F.linear(hidden, head_weight).float()
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


class _Chunked(torch.autograd.Function):
    """Gradients for hidden states and head are made chunk by chunk, and only scaled in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head_weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
        dtype = product_dtype(hidden)
        weight = head_weight.to(dtype)
        rows = max(1, CHUNK_BYTES // (weight.element_size() * len(weight)))
        predicted = (targets != IGNORED)[:, None]
        targets = targets[:, None].where(predicted, 0)
        loss = torch.zeros((), device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        head_grad = torch.zeros_like(head_weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            part = hidden[chunk].to(dtype)
            grad = part @ weight.T  # logits, which become their own gradients
            nats = [
                _differentiate(some, their_targets, softcap)
                for some, their_targets in zip(*_slices(SLICE_BYTES, grad, targets[chunk]), strict=True)
            ]
            loss += (torch.cat(nats) * predicted[chunk]).sum()
            hidden_grad[chunk] = (grad @ weight).mul_(predicted[chunk])
            if head_grad is not None:
                part = part * predicted[chunk]
                for total, some in zip(*_slices(HEAD_SLICE_BYTES, head_grad, grad.T), strict=True):
                    total += some @ part
        ctx.save_for_backward(hidden_grad, None if head_grad is None else head_grad.to(head_weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        hidden_grad, head_grad = ctx.saved_tensors  # scaled in place: there is one backward pass
        hidden_grad.mul_(grad_outputs[0])
        if head_grad is not None:
            head_grad.mul_(grad_outputs[0])
        return hidden_grad, head_grad, None, None


def _slices(num_bytes: int, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Rows that a CPU takes at once, of which the first tensor's have so many bytes in fp32.

    All of them where one kernel does everything, or kernels are to be few.
    """
    first = tensors[0]
    rows = len(first)
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = max(1, num_bytes // (4 * first.shape[1]))
    return [torch.split(tensor, rows) for tensor in tensors]


def _differentiate(logits: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    """Turn logits, (R, V), into their gradients in place; returns the nats of each row, (R, 1)."""
    exact = logits.float()
    slope = None
    if softcap is not None:
        tanh = (exact / softcap).tanh_()
        exact, slope = softcap * tanh, 1 - tanh.square()
    logs = exact.log_softmax(dim=1)
    nats = -logs.gather(1, targets)
    grad = logs.exp_().scatter_add_(1, targets, torch.full_like(nats, -1))
    logits.copy_(grad if slope is None else grad.mul_(slope))
    return nats
