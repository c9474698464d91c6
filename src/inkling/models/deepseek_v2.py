"""DeepSeek-V2 (arXiv 2405.04434): attention over latents, and mixtures with experts that all tokens go through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from inkling.models._decoder import DecoderConfig
from inkling.models._experts import Router
from inkling.models._latent import LATENT_SIZES, LatentBlock, LatentConfig
from inkling.models._mixture import MixtureDecoder

SIZES: dict[str, dict[str, Any]] = LATENT_SIZES


class Config(LatentConfig):
    """Shape of a DeepSeek-V2 model; keys as in `transformers.DeepseekV2Config`."""

    model_type: ClassVar[str] = "deepseek_v2"
    architecture: ClassVar[str] = "DeepseekV2ForCausalLM"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **LatentConfig.unsupported,
        "topk_method": (None, "greedy"),
        "norm_topk_prob": (None, False),
    }
    fixed: ClassVar[Mapping[str, Any]] = {**DecoderConfig.fixed, "topk_method": "greedy", "norm_topk_prob": False}


class DeepseekV2Block(LatentBlock):
    """One layer, with a router that scores by a softmax."""

    def make_router(self, config: Any) -> Router:
        """Weights do not add up to 1."""
        return Router(
            config.hidden_size,
            config.num_experts,
            config.num_experts_per_tok,
            normalise=False,
            scale=config.routed_scaling_factor,
            is_biased=config.router_bias_rate > 0,
        )


class Model(MixtureDecoder):
    """Same computation, names and layouts as `transformers.DeepseekV2ForCausalLM`."""

    block = DeepseekV2Block
