"""Rotary positions, and what stretches them to longer texts than a model was trained on.

Shapes: B batch, T time, H heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

RotaryTable = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, (T, 1, D/2) each."""


class RopeScaling(BaseModel):
    """How rotary frequencies were changed; keys as in `rope_scaling` of a `config.json`.

    | rope_type | what | source |
    | --- | --- | --- |
    | linear | all frequencies divided by `factor` | Chen et al. 2023, arXiv 2306.15595 |
    | yarn | slow frequencies divided, fast ones kept, attention a little sharper | Peng et al. 2023, arXiv 2309.00071 |
    | llama3 | the same by other borders, attention as it was | Llama 3.1, arXiv 2407.21783 |

    NTK-aware stretching is no kind of its own: it is a larger `rope_theta`, see `ntk_theta`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rope_type: Literal["linear", "yarn", "llama3"]
    factor: float = Field(ge=1)
    original_max_position_embeddings: int | None = Field(None, ge=1)
    attention_factor: float | None = Field(None, gt=0)
    beta_fast: float | None = Field(None, gt=0)
    beta_slow: float | None = Field(None, gt=0)
    low_freq_factor: float | None = Field(None, gt=0)
    high_freq_factor: float | None = Field(None, gt=0)
    mscale: float | None = Field(None, gt=0)
    mscale_all_dim: float | None = Field(None, gt=0)
    truncate: bool | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        needed = {
            "linear": (),
            "yarn": ("original_max_position_embeddings",),
            "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        }[self.rope_type]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"rope_scaling of type {self.rope_type} needs {', '.join(missing)}")
        return self

    def frequencies(self, plain: Tensor, theta: float) -> Tensor:
        """The stretched frequencies of `plain` ones, (D/2) -> (D/2)."""
        if self.rope_type == "linear":
            return plain / self.factor
        length = self.original_max_position_embeddings
        assert length is not None
        if self.rope_type == "llama3":
            return self._like_llama3(plain, length)
        ends = [_dimension_turning(turns, 2 * len(plain), theta, length) for turns in (self.fast, self.slow)]
        low, high = (math.floor(ends[0]), math.ceil(ends[1])) if self.truncate is not False else (ends[0], ends[1])
        low, high = max(low, 0), min(high, 2 * len(plain) - 1)
        places = torch.arange(len(plain), dtype=torch.float32, device=plain.device)
        slow = ((places - low) / max(high - low, 0.001)).clamp(0, 1)  # 0: turns fast and is kept; 1: divided
        return plain / self.factor * slow + plain * (1 - slow)

    def _like_llama3(self, plain: Tensor, length: int) -> Tensor:
        assert self.low_freq_factor is not None
        assert self.high_freq_factor is not None
        turns = length * plain / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return plain / self.factor * (1 - kept) + plain * kept

    @property
    def fast(self) -> float:
        """Turns over the old context from which a frequency is kept."""
        return self.beta_fast or 32.0

    @property
    def slow(self) -> float:
        """Turns up to which it is divided."""
        return self.beta_slow or 1.0

    @property
    def amplitude(self) -> float:
        """Factor of cosines and sines: scores grow by its square, so that attention stays as sharp."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all_dim)
        return yarn_mscale(self.factor)


def read_scaling(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rope_scaling` of a `config.json` of `transformers` 4, or `rope_parameters` of 5; None where there is none."""
    found = values.get("rope_scaling") or values.get("rope_parameters") or {}
    kind = found.get("rope_type", found.get("type", "default"))
    if kind == "default":
        return None
    others = ("rope_theta", "type", "rope_type", "partial_rotary_factor")
    return {"rope_type": kind, **{key: value for key, value in found.items() if key not in others}}


def yarn_mscale(factor: float, weight: float = 1.0) -> float:
    """0.1 · weight · ln(factor) + 1: what YaRN found to keep perplexity lowest."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def ntk_theta(theta: float, head_dim: int, factor: float) -> float:
    """NTK-aware stretching: the base at which the slowest frequency is divided by `factor`, the fastest kept.

    bloc97, 2023 (reddit.com/r/LocalLLaMA/comments/14lz7j5).
    """
    return float(theta * factor ** (head_dim / (head_dim - 2)))


def rotary_table(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype, scaling: RopeScaling | None = None
) -> RotaryTable:
    """The angles of rotary position embedding (Su et al. 2021, arXiv 2104.09864) at `positions`, (T).

    Computed anew in each forward pass, in fp32: it costs T·D/2 cosines, and a model then has no state but its weights.
    """
    frequencies = inverse_frequencies(head_dim, theta, scaling, positions.device)
    angles = positions[:, None, None] * frequencies  # (T, 1, D/2)
    if scaling is None or scaling.amplitude == 1.0:
        return angles.cos().to(dtype), angles.sin().to(dtype)
    return (angles.cos() * scaling.amplitude).to(dtype), (angles.sin() * scaling.amplitude).to(dtype)


def inverse_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Radians per token of each pair, (D/2)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = theta**-exponents
    return plain if scaling is None else scaling.frequencies(plain, theta)


def rotate(x: Tensor, rotary: RotaryTable) -> Tensor:
    """Turn each pair (i, i + D/2) by its position's angle, (B, T, H, D) -> (B, T, H, D), in the precision of `x`."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return _turned(x, *rotary)
    turned: Tensor = _Rotation.apply(x, *rotary)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """Computed in the precision of the table; the gradient turns back, and nothing but the table is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad_outputs[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.to(cos.dtype).chunk(2, dim=-1)  # (B, T, H, D/2) each
    turned = (first * cos).addcmul_(second, sin, value=-1), (second * cos).addcmul_(first, sin)
    return torch.cat(turned, dim=-1).to(x.dtype)


def _dimension_turning(turns: float, head_dim: int, theta: float, length: int) -> float:
    """The pair, as a real number, that makes so many turns over `length` tokens."""
    return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
