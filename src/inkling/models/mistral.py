"""Mistral (Jiang et al. 2023, arXiv 2310.06825): llama whose layers see a window, so that long texts cost no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._sizes import DECODER_SIZES, with_windows

SIZES: dict[str, dict[str, Any]] = with_windows(DECODER_SIZES)


class Config(DecoderConfig):
    """Shape of a Mistral model; keys as in `transformers.MistralConfig`."""

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"
    qk_norm: ClassVar[bool] = False
    layer_kinds: ClassVar[frozenset[str]] = frozenset({"full_attention", "sliding_attention"})
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {**DecoderConfig.unsupported, "attention_bias": (False,)}

    sliding_window: int | None = Field(None, ge=2)
    """Tokens that a token sees, itself included; null: all."""

    def window(self, layer: int) -> int | None:
        """The same in all layers."""
        return self.sliding_window


class Model(Decoder):
    """Same computation, names and layouts as `transformers.MistralForCausalLM`."""
