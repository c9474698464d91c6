"""Qwen3-MoE (Qwen Team 2025, arXiv 2505.09388): qwen3 with mixtures of many small experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import nn

from inkling.models._config import MAX_WIDTH
from inkling.models._decoder import Block
from inkling.models._experts import Mixture, Router
from inkling.models._layers import SwiGLU
from inkling.models._mixture import MixtureConfig, MixtureDecoder
from inkling.models._sizes import mixture_sizes

SIZES: dict[str, dict[str, Any]] = mixture_sizes("moe_intermediate_size", norm_topk_prob=True)


class Config(MixtureConfig):
    """Shape of a Qwen3-MoE model; keys as in `transformers.Qwen3MoeConfig`."""

    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"
    qk_norm: ClassVar[bool] = True

    moe_intermediate_size: int = Field(ge=1, le=MAX_WIDTH)
    norm_topk_prob: bool = False
    decoder_sparse_step: int = Field(1, ge=1)
    """Every so many layers one is a mixture; the others are dense, `intermediate_size` wide."""
    mlp_only_layers: list[int] = []  # noqa: RUF012 - pydantic copies it
    """Further dense layers."""

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Without other word the experts that a token goes through are together as wide as a dense layer.

        `transformers` 5 writes `num_local_experts` where version 4, and Qwen's own files, have `num_experts`.
        """
        filled = super()._fill_in(values)
        if "num_local_experts" in filled:
            filled.setdefault("num_experts", filled["num_local_experts"])
        width, chosen = filled.get("intermediate_size"), filled.get("num_experts_per_tok", 2)
        if isinstance(width, int) and isinstance(chosen, int) and chosen > 0:
            filled.setdefault("moe_intermediate_size", max(1, width // chosen))
        return filled

    def is_mixture(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0

    @model_validator(mode="after")
    def _has_mixtures(self) -> Self:
        if not any(self.is_mixture(layer) for layer in range(self.num_hidden_layers)):
            raise ValueError("no layer is a mixture: qwen3 is the dense model")
        return self


class Qwen3MoeBlock(Block):
    """One layer, with experts or dense."""

    def make_feed_forward(self, config: Config, layer: int) -> nn.Module:
        """The mixture, or a plain feed-forward layer."""
        if not config.is_mixture(layer):
            return SwiGLU(config.hidden_size, config.intermediate_size)
        gate = Router(
            config.hidden_size,
            config.num_experts,
            config.num_experts_per_tok,
            normalise=config.norm_topk_prob,
            is_biased=config.router_bias_rate > 0,
        )
        width = config.moe_intermediate_size
        return Mixture(gate, [SwiGLU(config.hidden_size, width) for _ in range(config.num_experts)])


class Model(MixtureDecoder):
    """Same computation, names and layouts as `transformers.Qwen3MoeForCausalLM`."""

    block = Qwen3MoeBlock
