"""A research model: the lowest loss for a budget of text, where no other program has to open it.

A llama-like decoder, but what enters each attention and feed-forward layer is first mixed with the three tokens before
it, channel by channel: the "Canon layers" A and C of Allen-Zhu 2025 (Physics of Language Models 4.1). A few thousand
more parameters save attention the work of looking at its neighbours. If asked, every second layer also looks up a
vector of each token and adds it to its values: the "value embeddings" of the public speedruns of nanoGPT, after the
value residuals of Zhou et al. 2024 (arXiv 2410.17897). What was measured is in
`docs/decisions/2026-11-21-speedrun.md`.

Shapes: B batch, T time, C hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from inkling.models._cache import KVCache
from inkling.models._decoder import Block, Decoder, DecoderConfig
from inkling.models._kernels import Documents
from inkling.models._layers import embedding
from inkling.models._rope import RotaryTable
from inkling.models._sizes import DECODER_SIZES

SIZES: dict[str, dict[str, Any]] = DECODER_SIZES


class Config(DecoderConfig):
    """Shape of the model; keys as in `transformers.Qwen3Config`, and two of its own."""

    model_type: ClassVar[str] = "speedrun"
    architecture: ClassVar[str] = "InklingSpeedrunForCausalLM"
    qk_norm: ClassVar[bool] = True

    conv_kernel: int = Field(4, ge=1)
    """Tokens that the convolutions mix: a token and those just before it."""
    value_embeddings: bool = False
    """Every second layer, from the last one back, adds a learnt vector of each token to its values."""


class ShortConvolution(nn.Module):
    """Adds to each token a weighted sum of it and its predecessors, with weights for each channel, at first all 0."""

    def __init__(self, hidden_size: int, kernel: int) -> None:
        super().__init__()
        self.taps = nn.ParameterList(nn.Parameter(torch.zeros(hidden_size)) for _ in range(kernel))

    def forward(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """(B, T, C) -> (B, T, C).

        Args:
            earlier: What stood 1, 2, … tokens before each, (B, T, C) each; zeros before the start of its text.
        """
        mixed: Tensor = x * (1 + self.taps[0].to(x.dtype))
        for before, tap in zip(earlier, self.taps[1:], strict=True):
            mixed = mixed + before.to(x.dtype) * tap.to(x.dtype)
        return mixed


class SpeedrunBlock(Block):
    """One layer: attention, then the feed-forward layer, the input of each mixed along time."""

    def __init__(self, config: Config, layer: int, dropout: float) -> None:
        super().__init__(config, layer, dropout)
        self.layer = layer
        self.attention_conv = ShortConvolution(config.hidden_size, config.conv_kernel)
        self.mlp_conv = ShortConvolution(config.hidden_size, config.conv_kernel)
        self.embed_values: nn.Module | None = None
        if config.value_embeddings and (config.num_hidden_layers - 1 - layer) % 2 == 0:
            self.embed_values = embedding(config.vocab_size, config.num_key_value_heads * config.head_dim)

    def forward(self, x: Tensor, rotary: RotaryTable, mask: Tensor | Documents | None, recent: Recent) -> Tensor:  # type: ignore[override]
        """(B, T, C) -> (B, T, C)."""
        mixed = recent.mix(self.attention_conv, f"{self.layer}.attention", self.input_layernorm(x))
        added_values = None if self.embed_values is None else self.embed_values(recent.input_ids)
        x = x + self.dropout(self.self_attn(mixed, rotary, mask, recent.cache, added_values))
        mixed = recent.mix(self.mlp_conv, f"{self.layer}.mlp", self.post_attention_layernorm(x))
        output: Tensor = x + self.dropout(self.get_submodule(self.feed_forward)(mixed))
        return output


class Recent:
    """The tokens of a forward pass, and what its convolutions may see before each."""

    def __init__(self, kernel: int, input_ids: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> None:
        self.input_ids = input_ids
        self.kernel = kernel
        self.cache = cache
        self.visible = None if segment_ids is None else [_same_document(segment_ids, lag) for lag in range(1, kernel)]
        self.is_text = None if cache is None else cache.is_text(input_ids.shape[1])

    def mix(self, convolution: nn.Module, name: str, x: Tensor) -> Tensor:
        """Apply a convolution to its input, (B, T, C), which a cache keeps for what comes next."""
        if self.is_text is not None:
            x = x * self.is_text[..., None]
        if self.cache is not None:
            earlier = self.cache.earlier(name, x, self.kernel - 1)
        else:
            earlier = [_shifted(x, lag) for lag in range(1, self.kernel)]
        if self.visible is not None:
            earlier = [before * seen for before, seen in zip(earlier, self.visible, strict=True)]
        mixed: Tensor = convolution(x, earlier)
        return mixed


def _shifted(x: Tensor, lag: int) -> Tensor:
    """What stands `lag` places before each, zeros at the start, (B, T, C) -> (B, T, C)."""
    return F.pad(x, (0, 0, lag, 0))[:, : x.shape[1]]


def _same_document(segment_ids: Tensor, lag: int) -> Tensor:
    """Whether the token `lag` places before is of the same document, (B, T) -> (B, T, 1)."""
    before = F.pad(segment_ids, (lag, 0), value=-1)[:, : segment_ids.shape[1]]
    return (before == segment_ids)[..., None]


class Model(Decoder):
    """The decoder with short convolutions and, if asked, value embeddings. Exports to nothing but this project."""

    config: Config
    block = SpeedrunBlock

    def _memory(self, input_ids: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> Recent:
        return Recent(self.config.conv_kernel, input_ids, segment_ids, cache)

    @torch.no_grad()
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew as in `Decoder`; the convolutions begin as the identity."""
        super().init_weights(generator)
        for module in self.modules():
            if isinstance(module, ShortConvolution):
                for tap in module.taps:
                    tap.zero_()
