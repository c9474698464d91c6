"""Gemma 2 (Gemma Team 2024, arXiv 2408.00118): windows in every other layer, norms on both sides, capped scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from inkling.models._attention import RotaryAttention
from inkling.models._cache import KVCache
from inkling.models._config import MAX_LAYERS
from inkling.models._decoder import Decoder, DecoderConfig
from inkling.models._kernels import Documents
from inkling.models._rope import RotaryTable
from inkling.models._scaled_dot import Scoring
from inkling.models._sizes import size, with_windows

SIZES: dict[str, dict[str, Any]] = with_windows(
    {
        "0.8m": size(layers=4, width=128, feed_forward=320, heads=4, vocabulary=259, context=256),
        "3m": size(layers=4, width=256, feed_forward=640, heads=4, vocabulary=1024, context=256),
        "10m": size(layers=7, width=320, feed_forward=896, heads=5, vocabulary=4096, context=512),
        "27m": size(layers=7, width=512, feed_forward=1472, heads=8, vocabulary=8192, context=512),
        "50m": size(layers=9, width=640, feed_forward=1792, heads=10, vocabulary=8192, context=1024),
        "124m": size(layers=16, width=768, feed_forward=2112, heads=12, vocabulary=16_384, context=1024),
        "350m": size(
            layers=28, width=1024, feed_forward=2816, heads=16, vocabulary=32_768, context=2048, num_key_value_heads=8
        ),
        "1b": size(
            layers=20, width=2048, feed_forward=5632, heads=16, vocabulary=32_768, context=2048, num_key_value_heads=8
        ),
    }
)


class Config(DecoderConfig):
    """Shape of a Gemma 2 model; keys as in `transformers.Gemma2Config`."""

    model_type: ClassVar[str] = "gemma2"
    architecture: ClassVar[str] = "Gemma2ForCausalLM"
    qk_norm: ClassVar[bool] = False
    layer_kinds: ClassVar[frozenset[str]] = frozenset({"full_attention", "sliding_attention"})
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **{key: values for key, values in DecoderConfig.unsupported.items() if key != "hidden_act"},
        "hidden_activation": (None, "gelu_pytorch_tanh"),
        "use_bidirectional_attention": (None, False),
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        **{key: value for key, value in DecoderConfig.fixed.items() if key != "hidden_act"},
        "hidden_activation": "gelu_pytorch_tanh",
    }

    tie_word_embeddings: bool = True
    query_pre_attn_scalar: int = Field(gt=0)
    """Scores are divided by its root, where others take the head size."""
    sliding_window: int | None = Field(4096, ge=2)
    layer_types: list[str] | None = None
    """`sliding_attention` or `full_attention` for each layer. Default: in turn, a window first."""
    final_logit_softcapping: float | None = Field(30.0, gt=0)
    attn_logit_softcapping: float | None = Field(50.0, gt=0)

    @classmethod
    def _fill_in(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Without other word scores are divided by the root of the head size, and layers take turns."""
        absent = {key: None for key in ("final_logit_softcapping", "attn_logit_softcapping") if key in values}
        filled = {**absent, **super()._fill_in(values)}
        filled.setdefault("query_pre_attn_scalar", filled.get("head_dim"))
        if "layer_types" not in filled and isinstance(filled.get("num_hidden_layers"), int):
            kinds = ("sliding_attention", "full_attention")
            filled["layer_types"] = [kinds[layer % 2] for layer in range(min(filled["num_hidden_layers"], MAX_LAYERS))]
        return filled

    def window(self, layer: int) -> int | None:
        """That of the layers that have one."""
        assert self.layer_types is not None
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None

    @property
    def keeps_scores(self) -> bool:
        """Where scores are capped."""
        return self.attn_logit_softcapping is not None

    @property
    def logit_softcap(self) -> float | None:
        """The cap of the logits."""
        return self.final_logit_softcapping

    def scoring(self, layer: int) -> Scoring:
        """Scores scaled by a number of their own, and capped."""
        return Scoring(
            scale=self.query_pre_attn_scalar**-0.5, softcap=self.attn_logit_softcapping, window=self.window(layer)
        )


class CentredRMSNorm(nn.Module):
    """RMSNorm whose gain is 1 more than its weight, computed in fp32."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) -> (…, C)."""
        return F.rms_norm(x.float(), self.weight.shape, 1 + self.weight.float(), self.eps).to(x.dtype)


class GeGLU(nn.Module):
    """Feed-forward layer gated by GELU (Shazeer 2020, arXiv 2002.05202), in its tanh approximation."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        output: Tensor = self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))
        return output


class Gemma2Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each with a norm before and one after."""

    def __init__(self, config: Config, layer: int, dropout: float) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = CentredRMSNorm(width, eps)
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
        self.post_attention_layernorm = CentredRMSNorm(width, eps)
        self.pre_feedforward_layernorm = CentredRMSNorm(width, eps)
        self.mlp = GeGLU(width, config.intermediate_size)
        self.post_feedforward_layernorm = CentredRMSNorm(width, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotary: RotaryTable, mask: Tensor | Documents | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        seen = self.self_attn(self.input_layernorm(x), rotary, mask, cache)
        x = x + self.dropout(self.post_attention_layernorm(seen))
        transformed = self.mlp(self.pre_feedforward_layernorm(x))
        output: Tensor = x + self.dropout(self.post_feedforward_layernorm(transformed))
        return output


class Model(Decoder):
    """Same computation, names and layouts as `transformers.Gemma2ForCausalLM`."""

    config: Config
    block = Gemma2Block

    def __init__(self, config: Config, *, dropout: float = 0.0) -> None:
        super().__init__(config, dropout=dropout)
        self.model.norm = CentredRMSNorm(config.hidden_size, config.rms_norm_eps)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings as large as the numbers that the layers add to them, (B, T) -> (B, T, C)."""
        embedded = self.model.embed_tokens(input_ids)
        scaled: Tensor = embedded * torch.tensor(self.config.hidden_size**0.5, dtype=embedded.dtype)
        return scaled

    @torch.no_grad()
    def init_weights(self, generator: Generator | None = None) -> None:
        """As in `Decoder`, but for what the norms after each half and the scaled embedding ask for.

        Every block starts as the identity here too, by gains of 0 after each half: a norm of zeros would have gradients
        a thousand times too large, so the last matrices of a half are drawn like the first. The embedding is the head
        too; a token whose row is longer than this would begin by predicting itself.
        """
        super().init_weights(generator)
        self.model.embed_tokens.weight.mul_(min(1.0, 256 / self.config.hidden_size))
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
            elif name.endswith("norm.weight"):
                is_after = "post_attention" in name or "post_feedforward" in name
                parameter.fill_(-1.0 if is_after else 0.0)  # gains of 0 and 1
