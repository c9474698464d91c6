"""Qwen2 (Qwen Team 2024, arXiv 2407.10671): llama with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any, ClassVar

from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._sizes import DECODER_SIZES

SIZES: dict[str, dict[str, Any]] = DECODER_SIZES


class Config(DecoderConfig):
    """Shape of a Qwen2 model; keys as in `transformers.Qwen2Config`."""

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    qk_norm: ClassVar[bool] = False
    qkv_bias: ClassVar[bool] = True


class Model(Decoder):
    """Same computation, names and layouts as `transformers.Qwen2ForCausalLM`."""
