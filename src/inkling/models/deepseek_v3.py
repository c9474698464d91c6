"""DeepSeek-V3 (arXiv 2412.19437): deepseek_v2 whose routers score by sigmoids and are kept even by biases alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from inkling.models._decoder import DecoderConfig
from inkling.models._experts import Router
from inkling.models._latent import LATENT_SIZES, LatentBlock, LatentConfig
from inkling.models._mixture import MixtureDecoder

SIZES: dict[str, dict[str, Any]] = LATENT_SIZES


class Config(LatentConfig):
    """Shape of a DeepSeek-V3 model without groups of experts; keys as in `transformers.DeepseekV3Config`."""

    model_type: ClassVar[str] = "deepseek_v3"
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **LatentConfig.unsupported,
        "n_group": (1,),
        "topk_group": (1,),
        "topk_method": (None, "noaux_tc"),
        "scoring_func": (None, "sigmoid"),
        "num_nextn_predict_layers": (None, 0),
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        **DecoderConfig.fixed,
        "n_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
    }

    norm_topk_prob: bool = True
    """Let the weights of the chosen experts add up to 1."""
    router_aux_loss_coef: float = Field(0.0, ge=0, le=0)
    """None: biases keep the routers even."""
    router_bias_rate: float = Field(0.001, ge=0)
    """How far a router's biases move in a step."""

    @property
    def beyond_transformers(self) -> list[str]:
        """Nothing: these routers have biases there too."""
        return []


class DeepseekV3Block(LatentBlock):
    """One layer, with a router that scores by sigmoids."""

    def make_router(self, config: Any) -> Router:
        """With biases, whether they move or not."""
        return Router(
            config.hidden_size,
            config.num_experts,
            config.num_experts_per_tok,
            normalise=config.norm_topk_prob,
            scale=config.routed_scaling_factor,
            score="sigmoid",
            is_biased=True,
        )


class Model(MixtureDecoder):
    """Same computation, names and layouts as `transformers.DeepseekV3ForCausalLM`."""

    block = DeepseekV3Block
