"""A decoder to try things on: positions, norms and feed-forward layers are options. Without any it is llama.

For questions such as "what do rotary positions bring on my text?", with everything else the same. It exports to nothing
but this project.

Shapes: B batch, T time, C hidden.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.models._attention import RotaryAttention, text_positions
from inkling.models._cache import KVCache
from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._kernels import Documents
from inkling.models._layers import RMSNorm, SwiGLU, embedding
from inkling.models._rope import RotaryTable
from inkling.models._scaled_dot import Scoring
from inkling.models._sizes import DECODER_SIZES

SIZES: dict[str, dict[str, Any]] = DECODER_SIZES


class Config(DecoderConfig):
    """Shape of the model, and its options."""

    model_type: ClassVar[str] = "workbench"
    architecture: ClassVar[str] = "InklingWorkbenchForCausalLM"
    qk_norm: ClassVar[bool] = False

    positions: Literal["rope", "alibi", "sinusoidal", "learned", "none"] = "rope"
    """How a token's place is told: by rotation (Su et al. 2021), by what distance costs (Press et al. 2021), by waves
    added to the embedding (Vaswani et al. 2017), by a learned table added to it, or not at all."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_place: Literal["pre", "post"] = "pre"
    """Before each half of a layer, or after it was added to the stream."""
    activation: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """Of the feed-forward layer: gated by SiLU, or plain with GELU or the square of ReLU (So et al. 2021)."""

    def scoring(self, layer: int) -> Scoring:
        """With slopes where distance costs."""
        return Scoring(slopes=alibi_slopes(self.num_attention_heads) if self.positions == "alibi" else None)


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """What a token loses per token of distance, for each head: a geometric row, its middle filled for odd numbers."""

    def row(count: int) -> list[float]:
        return [2 ** (-8 * (head + 1) / count) for head in range(count)]

    power = 1 << (num_heads.bit_length() - 1)
    return tuple(row(power) + row(2 * power)[::2][: num_heads - power])


class MLP(nn.Module):
    """Feed-forward layer without a gate."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.squared = activation == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        inner = self.up_proj(x)
        output: Tensor = self.down_proj(F.relu(inner).square() if self.squared else F.gelu(inner))
        return output


class WorkbenchBlock(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to the residual stream."""

    def __init__(self, config: Config, layer: int, dropout: float) -> None:
        super().__init__()
        width = config.hidden_size
        self.input_layernorm = make_norm(config)
        self.self_attn = RotaryAttention(
            layer,
            hidden_size=width,
            num_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            qk_norm_eps=None,
            scoring=config.scoring(layer),
        )
        self.post_attention_layernorm = make_norm(config)
        inner = config.intermediate_size
        self.mlp = SwiGLU(width, inner) if config.activation == "swiglu" else MLP(width, inner, config.activation)
        self.dropout = nn.Dropout(dropout)
        self.is_post = config.norm_place == "post"

    def forward(
        self, x: Tensor, rotary: RotaryTable | None, mask: Tensor | Documents | None, cache: KVCache | None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if self.is_post:
            x = self.input_layernorm(x + self.dropout(self.self_attn(x, rotary, mask, cache)))
            output: Tensor = self.post_attention_layernorm(x + self.dropout(self.mlp(x)))
            return output
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rotary, mask, cache))
        total: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return total


def make_norm(config: Config) -> nn.Module:
    """The norm of the configuration."""
    if config.norm == "layernorm":
        return nn.LayerNorm(config.hidden_size, eps=config.rms_norm_eps)
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Model(Decoder):
    """The decoder of the options. Exports to nothing but this project."""

    config: Config
    block = WorkbenchBlock

    def __init__(self, config: Config, *, dropout: float = 0.0) -> None:
        super().__init__(config, dropout=dropout)
        self.model.norm = nn.Identity() if config.norm_place == "post" else make_norm(config)
        if config.positions == "learned":
            self.model.embed_positions = embedding(config.max_position_embeddings, config.hidden_size)

    def add_positions(self, x: Tensor, segment_ids: Tensor | None, cache: KVCache | None) -> Tensor:
        """Waves, or rows of the table, (B, T, C) -> (B, T, C)."""
        if self.config.positions not in ("sinusoidal", "learned"):
            return x
        places = text_positions(x.shape[1], segment_ids, cache, x.device)
        if self.config.positions == "learned":
            learned: Tensor = x + self.model.get_submodule("embed_positions")(places)
            return learned
        return x + _WAVE_SIZE * waves(places, self.config.hidden_size).to(x.dtype)

    def rotary_table(self, positions: Tensor, dtype: torch.dtype) -> RotaryTable | None:
        """None where nothing is rotated."""
        return super().rotary_table(positions, dtype) if self.config.positions == "rope" else None


_WAVE_SIZE = 0.02
"""Of the waves, beside embeddings whose standard deviation is 0.02."""


def waves(places: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of wave lengths from 2π to 20,000π tokens: (…) -> (…, width)."""
    half = (width + 1) // 2
    rates = 10_000 ** (-torch.arange(half, dtype=torch.float32, device=places.device) / half)
    angles = places[..., None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., :width]
