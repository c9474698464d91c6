"""Embeddings, norms and feed-forward layers.

Shapes: B batch, T time, C hidden.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products with `x` compute in: what autocast says where it is on, else the precision of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if not x.is_meta and torch.is_autocast_enabled(kind) else x.dtype


def for_products(x: Tensor) -> Tensor:
    """`x` in the precision of products, for several of them: autocast would convert it, and its gradient, for each."""
    return x.to(product_dtype(x))


def embedding(num_rows: int, width: int) -> nn.Embedding:
    """As torch makes one, but for the meta device, where its first values would import torch's compiler: a second."""
    weight = torch.empty(num_rows, width)
    return nn.Embedding(num_rows, width, _weight=weight if weight.is_meta else nn.init.normal_(weight))


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with a gain (Zhang and Sennrich 2019, arXiv 1910.07467), in the precision of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)."""
        assert self.weight is not None
        assert self.eps is not None
        if x.device.type in ("cpu", "meta") and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            normed: Tensor = _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
            return normed
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class _RMSNorm(torch.autograd.Function):
    """The same in fewer passes over memory than torch's, which on a CPU is made of single operations, and less kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        exact = x.float()
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = (length.square() / x.shape[-1] + eps).rsqrt()  # (…, 1)
        ctx.save_for_backward(x, gain, scale)
        normed: Tensor = (exact * scale).mul_(gain.float()).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, scale = ctx.saved_tensors
        normed = x.float() * scale
        grad = grad_outputs[0].float() * gain.float()
        gain_grad = (grad_outputs[0] * normed).flatten(0, -2).sum(dim=0).to(gain.dtype)
        along = torch.linalg.vecdot(grad, normed).unsqueeze(-1) / x.shape[-1]  # what the norm takes away
        return grad.addcmul_(normed, along, value=-1).mul_(scale).to(x.dtype), gain_grad, None


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = for_products(x)
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output
