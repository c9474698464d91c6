"""Feed-forward layers and rotary positions.

Shapes: B batch, T time, C hidden, H heads, D head size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RotaryTable = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, (T, 1, D/2) each."""


def rotary_table(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> RotaryTable:
    """The angles of rotary position embedding (Su et al. 2021, arXiv 2104.09864) at `positions`, (T).

    Computed anew in each forward pass, in fp32: it costs T·D/2 cosines, and a model then has no state but its weights.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[:, None, None] * theta**-exponents  # (T, 1, D/2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotary: RotaryTable) -> Tensor:
    """Turn each pair (i, i + D/2) by its position's angle, (B, T, H, D) -> (B, T, H, D)."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)  # (B, T, H, D/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with a gain (Zhang and Sennrich 2019, arXiv 1910.07467), in the precision of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)."""
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output
