"""Multi-head latent attention: what a cache keeps of a token is one small vector for all heads.

DeepSeek-V2 (arXiv 2405.04434), 2.1. Keys and values are made of a latent; a few further numbers of each key, the same
for all heads, tell the place. Without a cache keys and values are made as in other attention. With one the matrices
that make them are applied to queries and outputs instead, so that attention works on the latents themselves: one key
for all heads, whose first numbers are its value.

Shapes: B batch, T time, C hidden, H heads, R latent, N numbers of a key without place, P with place, V of a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from inkling.models._cache import KVCache
from inkling.models._decoder import Block, DecoderConfig
from inkling.models._experts import Mixture, Router
from inkling.models._layers import RMSNorm, SwiGLU
from inkling.models._mixture import MixtureConfig
from inkling.models._rope import RotaryTable, rotate, yarn_mscale
from inkling.models._scaled_dot import Scoring, attend
from inkling.models._sizes import mixture_sizes

_EXPERT_WIDTHS = {"0.8m": 48, "1b": 1280}
"""Where those of the other mixtures would make another size."""
LATENT_SIZES: dict[str, dict[str, Any]] = {
    name: {
        **{key: value for key, value in values.items() if key != "num_key_value_heads"},
        "q_lora_rank": values["hidden_size"] // 2,
        "kv_lora_rank": values["hidden_size"] // 4,
        "moe_intermediate_size": _EXPERT_WIDTHS.get(name, values["moe_intermediate_size"]),
    }
    for name, values in mixture_sizes("moe_intermediate_size", first_k_dense_replace=1).items()
}
"""Two of eight experts for each token, a shared one that all tokens go through, and no experts in the first layer."""


class LatentConfig(MixtureConfig):
    """What the shapes of deepseek_v2 and deepseek_v3 have in common."""

    qk_norm: ClassVar[bool] = False
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **DecoderConfig.unsupported,
        "attention_bias": (False,),
        "rope_interleave": (True,),
    }
    spellings: ClassVar[Mapping[str, str]] = {"num_experts": "n_routed_experts"}

    kv_lora_rank: int = Field(ge=1)
    """Width of the latent."""
    q_lora_rank: int | None = Field(None, ge=1)
    """Width through which queries are made; None: they are made at once."""
    qk_nope_head_dim: int = Field(ge=1)
    """Numbers of a key that do not tell its place."""
    qk_rope_head_dim: int = Field(ge=2, multiple_of=2)
    """Those that do."""
    v_head_dim: int = Field(ge=1)
    """Numbers of a value."""
    first_k_dense_replace: int = Field(0, ge=0)
    """So many layers at the front are dense, `intermediate_size` wide; the others have experts."""
    n_shared_experts: int = Field(1, ge=1)
    """Experts that all tokens go through, as one feed-forward layer."""
    moe_intermediate_size: int = Field(ge=1)
    """Width of an expert."""
    routed_scaling_factor: float = Field(1.0, gt=0)
    """Factor of the chosen experts' weights."""

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Without other word widths are in DeepSeek's proportions, a token's experts as wide as a dense layer."""
        filled = super()._fill_in(values)
        nope, inner = filled.get("head_dim"), filled.get("intermediate_size")
        if isinstance(nope, int):
            filled.setdefault("qk_nope_head_dim", nope)
            filled.setdefault("qk_rope_head_dim", max(2, nope // 4 * 2))
            filled.setdefault("v_head_dim", nope)
            filled.setdefault("kv_lora_rank", 4 * nope)
        if isinstance(inner, int):
            at_work = filled.get("num_experts_per_tok", 2) + filled.get("n_shared_experts", 1)
            filled.setdefault("moe_intermediate_size", max(1, inner // at_work))
        return {**filled, "head_dim": filled.get("qk_rope_head_dim")}  # the head size that rotary positions know

    @model_validator(mode="after")
    def _has_a_key_for_each_head(self) -> Self:
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError("num_key_value_heads must be num_attention_heads: the latent is what heads share")
        return self

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return layer >= self.first_k_dense_replace

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """A latent and the rotated part of the key; values are the latents."""
        return 1, self.kv_lora_rank + self.qk_rope_head_dim, 0

    @property
    def qk_head_dim(self) -> int:
        """Numbers of a key."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def attention_widths(self) -> tuple[int, int]:
        """Those of a key, and those of a value."""
        return self.qk_head_dim, self.v_head_dim

    @property
    def score_scale(self) -> float:
        """Factor of the scores: YaRN's sharpening is in it, where DeepSeek has it, and not in the angles."""
        scaling = self.rope_scaling
        sharper = yarn_mscale(scaling.factor, scaling.mscale_all_dim) if scaling and scaling.mscale_all_dim else 1.0
        return float(self.qk_head_dim**-0.5 * sharper**2)


class LatentAttention(nn.Module):
    """Attention over latents, under DeepSeek's names."""

    def __init__(self, config: LatentConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.widths = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.rank = config.kv_lora_rank
        heads, key = config.num_attention_heads, config.qk_head_dim
        self.scoring = Scoring(scale=config.score_scale)
        self.latent_scoring = Scoring(scale=config.score_scale, value_dim=self.rank)
        self.q_lora_rank = config.q_lora_rank
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(config.hidden_size, heads * key, bias=False)
        else:
            self.q_a_proj = nn.Linear(config.hidden_size, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=_LATENT_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * key, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, self.rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, eps=_LATENT_EPS)
        self.kv_b_proj = nn.Linear(self.rank, heads * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rotary: RotaryTable, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        (B, T, _), (nope, place, value) = x.shape, self.widths
        q = self._queries(x).view(B, T, -1, nope + place)  # (B, T, C) -> (B, T, H, N + P)
        q_nope, q_place = torch.split(q, [nope, place], dim=-1)
        latent, k_place = self.kv_a_proj_with_mqa(x).split((self.rank, place), dim=-1)
        latent = self.kv_a_layernorm(latent)  # (B, T, R)
        q_place, k_place = (rotate(_in_halves(part), rotary) for part in (q_place, k_place[:, :, None]))
        if cache is None:
            k_nope, v = self.kv_b_proj(latent).view(B, T, -1, nope + value).split((nope, value), dim=-1)
            keys = torch.cat((k_nope, k_place.expand(*k_nope.shape[:-1], place)), dim=-1)  # (B, T, H, N + P)
            v = F.pad(v, (0, max(0, nope + place - value)))  # fused kernels want values as wide as keys
            q, k, v = (part.transpose(1, 2) for part in (torch.cat((q_nope, q_place), dim=-1), keys, v))
            seen = attend(q, k, v, mask, self.scoring).view(B, T, q.shape[1], -1)[..., :value]
        else:
            to_keys, to_values = self._matrices(latent)  # (H, N, R), (H, V, R)
            q = torch.cat((torch.einsum("bthn,hnr->bthr", q_nope, to_keys), q_place), dim=-1)
            k = torch.cat((latent[:, :, None], k_place), dim=-1)  # (B, T, 1, R + P)
            q, k = q.transpose(1, 2), k.transpose(1, 2)
            latents = cache.attend(self.layer, q, k, k[..., :0], mask, self.latent_scoring)  # (B, T, H·R)
            seen = torch.einsum("bthr,hvr->bthv", latents.view(B, T, -1, self.rank), to_values)
        mixed: Tensor = self.o_proj(seen.flatten(2))
        return mixed

    def _queries(self, x: Tensor) -> Tensor:
        queries: Tensor = (
            self.q_proj(x) if self.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        )
        return queries

    def _matrices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What makes keys and values of a latent, also where it is packed or has an adapter beside it."""
        nope, _, value = self.widths
        if type(self.kv_b_proj) is nn.Linear:
            matrix = self.kv_b_proj.weight.to(like.dtype)
        else:
            matrix = self.kv_b_proj(torch.eye(self.rank, dtype=like.dtype, device=like.device)).T
        to_keys, to_values = torch.split(matrix.reshape(-1, nope + value, self.rank), [nope, value], dim=1)
        return to_keys, to_values


_LATENT_EPS = 1e-6
"""Of the norms of latents, whatever that of the others is."""


def _in_halves(x: Tensor) -> Tensor:
    """Pairs (2i, 2i + 1), which DeepSeek's weights make, as pairs (i, i + D/2)."""
    return x.reshape(*x.shape[:-1], -1, 2).transpose(-1, -2).flatten(-2)


class SharedMixture(Mixture):
    """A mixture, and experts beside it that all tokens go through."""

    def __init__(self, gate: Router, experts: list[SwiGLU], shared: SwiGLU) -> None:
        super().__init__(gate, experts)
        self.shared_experts = shared

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        output: Tensor = super().forward(x) + self.shared_experts(x)
        return output


class LatentBlock(Block):
    """One layer: attention over latents, then experts, or a dense layer."""

    def make_attention(self, config: Any, layer: int) -> nn.Module:
        """Over latents."""
        return LatentAttention(config, layer)

    def make_feed_forward(self, config: Any, layer: int) -> nn.Module:
        """The mixture, or a plain feed-forward layer."""
        width, inner = config.hidden_size, config.moe_intermediate_size
        if not config.is_mixture(layer):
            return SwiGLU(width, config.intermediate_size)
        experts = [SwiGLU(width, inner) for _ in range(config.num_experts)]
        return SharedMixture(self.make_router(config), experts, SwiGLU(width, config.n_shared_experts * inner))

    def make_router(self, config: Any) -> Router:
        """What chooses the experts."""
        raise NotImplementedError
