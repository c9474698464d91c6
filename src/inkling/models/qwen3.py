"""Qwen3 (Qwen Team 2025, arXiv 2505.09388): llama with queries and keys normalised per head. The default."""

from __future__ import annotations

from typing import Any, ClassVar

from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._sizes import DECODER_SIZES

SIZES: dict[str, dict[str, Any]] = DECODER_SIZES


class Config(DecoderConfig):
    """Shape of a Qwen3 model; keys as in `transformers.Qwen3Config`."""

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    qk_norm: ClassVar[bool] = True


class Model(Decoder):
    """Same computation, names and layouts as `transformers.Qwen3ForCausalLM`."""
