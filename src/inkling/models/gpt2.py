"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, GELU, biases, tied head.

Shapes: B batch, T time, C hidden, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from inkling.models._attention import text_positions
from inkling.models._cache import KVCache
from inkling.models._config import MAX_CONTEXT, MAX_HEADS, ModelConfig
from inkling.models._kernels import Documents
from inkling.models._layers import embedding
from inkling.models._model import LanguageModel
from inkling.models._scaled_dot import attend
from inkling.models._sizes import size


class Config(ModelConfig):
    """Shape of a GPT-2 model; keys as in `transformers.GPT2Config`, which reads both spellings of each key."""

    model_type: ClassVar[str] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    spellings: ClassVar[Mapping[str, str]] = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "intermediate_size": "n_inner",
    }

    num_key_value_heads: int = Field(ge=1, le=MAX_HEADS, exclude=True)
    head_dim: int = Field(ge=1, le=MAX_HEADS, exclude=True)
    max_position_embeddings: int = Field(1024, ge=1, le=MAX_CONTEXT)
    layer_norm_epsilon: float = Field(1e-5, gt=0)
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh", "gelu"] = "gelu_new"
    """The first two are GELU in its tanh approximation, `gelu` is GELU itself, as in nanoGPT."""

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Without other word the feed-forward layer is four times as wide as the stream."""
        filled = super()._fill_in(values)
        if isinstance(filled.get("hidden_size"), int):
            filled.setdefault("intermediate_size", 4 * filled["hidden_size"])
        return filled

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError("gpt2 has as many key-value heads as query heads; qwen3 and llama can have fewer")
        if self.head_dim * self.num_attention_heads != self.hidden_size:
            raise ValueError(f"hidden_size {self.hidden_size} must be num_attention_heads × head_dim")
        return self


class Conv1D(nn.Module):
    """A linear layer whose matrix is stored (in, out), as in GPT-2's checkpoints."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_in, num_out))
        self.bias = nn.Parameter(torch.zeros(num_out))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight.T, self.bias)


class Attention(nn.Module):
    """Multi-head causal attention, queries, keys and values from one matrix."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.c_attn = Conv1D(config.hidden_size, 3 * config.hidden_size)
        self.c_proj = Conv1D(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | Documents | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        qkv = self.c_attn(x).unflatten(-1, (3, -1, self.head_dim))  # (B, T, C) -> (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # -> (B, H, T, D) each
        if cache is None:
            seen = attend(q, k, v, mask)
        else:
            assert not isinstance(mask, Documents)
            seen = cache.attend(self.layer, q, k, v, mask)
        mixed: Tensor = self.c_proj(seen)
        return mixed


class MLP(nn.Module):
    """Feed-forward layer with GELU, in its tanh approximation or exact."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.approximate = "none" if config.activation_function == "gelu" else "tanh"
        self.c_fc = Conv1D(config.hidden_size, config.intermediate_size)
        self.c_proj = Conv1D(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        output: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))
        return output


class Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to the residual stream."""

    def __init__(self, config: Config, layer: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | Documents | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attn(self.ln_1(x), mask, cache))
        output: Tensor = x + self.dropout(self.mlp(self.ln_2(x)))
        return output


class Stack(nn.Module):
    """Embeddings, blocks and final norm: what `transformers` calls `transformer`."""

    def __init__(self, config: Config, dropout: float) -> None:
        super().__init__()
        self.wte = embedding(config.vocab_size, config.hidden_size)
        self.wpe = embedding(config.max_position_embeddings, config.hidden_size)
        self.h = nn.ModuleList(Block(config, layer, dropout) for layer in range(config.num_hidden_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)


class Model(LanguageModel):
    """Same computation, names and layouts as `transformers.GPT2LMHeadModel`.

    Args:
        config: Shape.
        dropout: Share of the embedding and of each block's two outputs that is dropped in training mode.
    """

    config: Config

    def __init__(self, config: Config, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.transformer = Stack(config, dropout)
        self.dropout = nn.Dropout(dropout)

    @property
    def head(self) -> nn.Module:
        """What projects to the vocabulary."""
        return self.transformer.wte

    def hidden(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states after the last norm, (B, T) -> (B, T, C). See `LanguageModel.hidden`."""
        assert segment_ids is None or cache is None
        T = input_ids.shape[1]
        positions = text_positions(T, segment_ids, cache, input_ids.device)
        mask: Tensor | Documents | None = None if cache is None else cache.mask(T)
        if segment_ids is not None:
            mask = Documents(segment_ids)
        stack = self.transformer
        x = self.dropout(stack.wte(input_ids) + stack.wpe(positions))  # (B, T) -> (B, T, C)
        for block in stack.h:
            x = block(x, mask, cache)
        if cache is not None:
            cache.advance(T)
        normed: Tensor = stack.ln_f(x)
        return normed

    @torch.no_grad()
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew, as GPT-2 did: normal distributions around 0.

        | weight | standard deviation | why |
        | --- | --- | --- |
        | embeddings | 0.02 | |
        | c_attn, c_fc | 0.02 | |
        | c_proj | 0.02/√(2L) | 2L outputs add up in the residual stream |
        | norm gains | all 1 | |
        | biases | all 0 | |
        """
        scaled = 0.02 * (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, scaled if name.endswith("c_proj.weight") else 0.02, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


# 124m and 350m are GPT-2's own small and medium.
SIZES: dict[str, dict[str, Any]] = {
    "0.8m": size(layers=4, width=128, feed_forward=512, heads=4, vocabulary=259, context=256),
    "3m": size(layers=6, width=192, feed_forward=768, heads=6, vocabulary=1024, context=256),
    "10m": size(layers=7, width=320, feed_forward=1280, heads=5, vocabulary=4096, context=512),
    "27m": size(layers=7, width=512, feed_forward=2048, heads=8, vocabulary=8192, context=512),
    "50m": size(layers=9, width=640, feed_forward=2560, heads=10, vocabulary=8192, context=1024),
    "124m": size(layers=12, width=768, feed_forward=3072, heads=12, vocabulary=50_257, context=1024),
    "350m": size(layers=24, width=1024, feed_forward=4096, heads=16, vocabulary=50_257, context=1024),
    "1b": size(layers=32, width=1536, feed_forward=6144, heads=24, vocabulary=50_257, context=1024),
}
