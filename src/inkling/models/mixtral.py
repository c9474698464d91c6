"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): llama with a mixture of experts in each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from inkling.models._decoder import Block, DecoderConfig
from inkling.models._experts import Mixture, Router
from inkling.models._layers import SwiGLU
from inkling.models._mixture import MixtureConfig, MixtureDecoder
from inkling.models._sizes import mixture_sizes

SIZES: dict[str, dict[str, Any]] = mixture_sizes("intermediate_size")


class Config(MixtureConfig):
    """Shape of a Mixtral model; keys as in `transformers.MixtralConfig`."""

    model_type: ClassVar[str] = "mixtral"
    architecture: ClassVar[str] = "MixtralForCausalLM"
    qk_norm: ClassVar[bool] = False
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **DecoderConfig.unsupported,
        "router_jitter_noise": (None, 0, 0.0),
        "attention_bias": (False,),
    }
    spellings: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}

    sliding_window: int | None = Field(None, ge=2)

    def window(self, layer: int) -> int | None:
        """The same in all layers."""
        return self.sliding_window


class Expert(SwiGLU):
    """SwiGLU, with its matrices under Mixtral's names."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        nn.Module.__init__(self)
        self.w1 = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.w2 = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.w3 = nn.Linear(hidden_size, intermediate_size, bias=False)

    def __getattr__(self, name: str) -> Any:
        """The matrix of that role."""
        return super().__getattr__({"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}.get(name, name))


class MixtralBlock(Block):
    """One layer, with experts."""

    feed_forward: ClassVar[str] = "block_sparse_moe"

    def make_feed_forward(self, config: Config, layer: int) -> nn.Module:
        """The mixture."""
        gate = Router(
            config.hidden_size,
            config.num_experts,
            config.num_experts_per_tok,
            normalise=True,
            is_biased=config.router_bias_rate > 0,
        )
        return Mixture(gate, [Expert(config.hidden_size, config.intermediate_size) for _ in range(config.num_experts)])


class Model(MixtureDecoder):
    """Same computation, names and layouts as `transformers.MixtralForCausalLM`."""

    block = MixtralBlock
