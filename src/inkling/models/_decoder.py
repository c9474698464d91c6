"""The decoder that llama and qwen3 share: pre-RMSNorm, rotary grouped-query attention, SwiGLU.

Shapes: B batch, T time, C hidden, V vocabulary, D head size, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from inkling.errors import ModelError
from inkling.models._attention import RotaryAttention
from inkling.models._cache import KVCache
from inkling.models._config import MAX_CONTEXT, MAX_HEADS, ModelConfig
from inkling.models._kernels import Documents
from inkling.models._layers import RMSNorm, SwiGLU, embedding
from inkling.models._model import LanguageModel
from inkling.models._rope import RopeScaling, RotaryTable, read_scaling, rotary_table
from inkling.models._scaled_dot import Scoring


class DecoderConfig(ModelConfig):
    """Shape of a llama-like decoder; keys as in `transformers`."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "hidden_act": ("silu",),
        "mlp_bias": (False,),
        "partial_rotary_factor": (None, 1, 1.0),
        "use_sliding_window": (None, False),
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    qk_norm: ClassVar[bool]
    """Normalise queries and keys per head."""
    qkv_bias: ClassVar[bool] = False
    """Queries, keys and values always have biases; `attention_bias` gives one to the output projection too."""
    layer_kinds: ClassVar[frozenset[str]] = frozenset({"full_attention"})
    """Values of `layer_types` that are computed."""

    head_dim: int = Field(ge=2, le=MAX_HEADS, multiple_of=2)
    max_position_embeddings: int = Field(2048, ge=1, le=MAX_CONTEXT)
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10_000.0, gt=0)
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    tie_word_embeddings: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a `config.json`, of `transformers` 4 or 5: the latter has a section for the rotary positions."""
        kinds = set(values.get("layer_types") or ()) - cls.layer_kinds
        if kinds:
            raise ModelError(
                f"this {cls.model_type} model needs what Inkling does not compute: {', '.join(sorted(kinds))}"
            )
        new_spelling = values.get("rope_parameters") or {}
        moved = {key: new_spelling[key] for key in ("rope_theta", "partial_rotary_factor") if key in new_spelling}
        return super().from_dict({**moved, **values, "rope_scaling": read_scaling(values)})

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model."""
        scaling = self.rope_scaling and self.rope_scaling.model_dump(exclude_none=True)
        return {**super().to_dict(), "rope_scaling": scaling}

    def scoring(self, layer: int) -> Scoring:
        """How this layer scores keys."""
        return Scoring(window=self.window(layer))


class Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to the residual stream."""

    feed_forward: ClassVar[str] = "mlp"
    """The name of the feed-forward layer."""

    def __init__(self, config: DecoderConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn: nn.Module = self.make_attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.add_module(self.feed_forward, self.make_feed_forward(config, layer))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotary: RotaryTable, mask: Tensor | Documents | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rotary, mask, cache))
        transform = self.get_submodule(self.feed_forward)
        output: Tensor = x + self.dropout(transform(self.post_attention_layernorm(x)))
        return output

    def make_attention(self, config: Any, layer: int) -> nn.Module:
        """What the first half of the layer asks: called as `RotaryAttention` is."""
        return RotaryAttention(
            layer,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            qkv_bias=config.attention_bias or config.qkv_bias,
            output_bias=config.attention_bias,
            qk_norm_eps=config.rms_norm_eps if config.qk_norm else None,
            scoring=config.scoring(layer),
        )

    def make_feed_forward(self, config: Any, layer: int) -> nn.Module:
        """The second half of the layer, (B, T, C) -> (B, T, C)."""
        return SwiGLU(config.hidden_size, config.intermediate_size)


class Stack(nn.Module):
    """Embedding, blocks and final norm: what `transformers` calls `model`."""

    def __init__(self, config: DecoderConfig, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed_tokens = embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(blocks)
        self.norm: nn.Module = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


_ENDS_OF_BRANCHES = ("o_proj", "down_proj", "w2")


class Decoder(LanguageModel):
    """A llama-like causal language model.

    Args:
        config: Shape.
        dropout: Share of the embedding and of each block's two outputs that is dropped in training mode.
    """

    config: DecoderConfig
    block: ClassVar[type[nn.Module]] = Block

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.model = Stack(config, [self.block(config, layer, dropout) for layer in range(config.num_hidden_layers)])
        self.dropout = nn.Dropout(dropout)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head(self) -> nn.Module:
        """What projects to the vocabulary."""
        return self.model.embed_tokens if self.config.tie_word_embeddings else self.lm_head

    def embed(self, input_ids: Tensor) -> Tensor:
        """What enters the first layer, (B, T) -> (B, T, C)."""
        embedded: Tensor = self.model.embed_tokens(input_ids)
        return embedded

    def add_positions(self, x: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> Tensor:
        """What tells places before the first layer, added to the embeddings: nothing, where attention rotates."""
        return x

    def rotary_table(self, positions: Tensor, dtype: torch.dtype) -> RotaryTable | None:
        """Angles at `positions`, (T)."""
        config = self.config
        return rotary_table(positions, config.head_dim, config.rope_theta, dtype, config.rope_scaling)

    def hidden(self, input_ids: Tensor, *, segment_ids: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Hidden states after the last norm, (B, T) -> (B, T, C). See `LanguageModel.hidden`."""
        return self.read(self.embed(input_ids), input_ids, segment_ids=segment_ids, cache=cache)

    def read(
        self,
        x: Tensor,
        input_ids: Tensor,
        *,
        segment_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """The same from embeddings on, (B, T, C) -> (B, T, C).

        Args:
            input_ids: What was embedded, (B, T), for layers that look tokens up themselves.
        """
        assert segment_ids is None or cache is None
        T = x.shape[1]
        x = self.dropout(self.add_positions(x, segment_ids, cache))
        # Rotary attention depends on distances only: positions may count slots, across documents and padding.
        positions = torch.arange(T, device=x.device) if cache is None else cache.slots(T)
        rotary = self.rotary_table(positions, x.dtype)
        mask: Tensor | Documents | None = None if cache is None else cache.mask(T)
        if segment_ids is not None:
            mask = Documents(segment_ids)
        memory = self._memory(input_ids, segment_ids, cache)
        for block in self.model.layers:
            x = block(x, rotary, mask, memory)
        if cache is not None:
            cache.advance(T)
        normed: Tensor = self.model.norm(x)
        return normed

    def _memory(self, input_ids: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> Any:
        """What each block is given besides: earlier tokens, and in some architectures these."""
        return cache

    @torch.no_grad()
    def init_weights(self, generator: Generator | None = None) -> None:
        """Draw all weights anew, from normal distributions around 0.

        | weight | standard deviation | why |
        | --- | --- | --- |
        | embeddings | 0.02 | the usual scale of a matrix that may also be the head |
        | q, k, v, gate, up | 1/√inputs | keeps the scale of a normalised input |
        | o, down | 0 | every block starts as the identity (Zhang et al. 2019, arXiv 1901.09321) |
        | head, untied | 0.02 | logits near 0: the first loss is ln V |
        | routers | 0.02 | at first experts are equally likely |
        | norm gains | all 1 | |
        | biases | all 0 | |
        """
        for name, parameter in self.named_parameters():
            role = name.split(".")[-2]
            if name.endswith("bias") or role in _ENDS_OF_BRANCHES:
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            elif role.startswith("embed_") or role in ("lm_head", "gate"):
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
