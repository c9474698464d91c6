"""Llama (Touvron et al. 2023, arXiv 2302.13971), with grouped-query attention: what most tools load."""

from __future__ import annotations

from typing import Any, ClassVar

from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._sizes import DECODER_SIZES

SIZES: dict[str, dict[str, Any]] = DECODER_SIZES


class Config(DecoderConfig):
    """Shape of a Llama model; keys as in `transformers.LlamaConfig`."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    qk_norm: ClassVar[bool] = False


class Model(Decoder):
    """Same computation, names and layouts as `transformers.LlamaForCausalLM`."""
