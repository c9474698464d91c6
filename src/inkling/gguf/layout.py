"""How each architecture is spelled in a GGUF file: the keys of its shape, the names and orders of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from inkling.errors import ExportError


@dataclass(frozen=True)
class Layout:
    """One architecture's spelling.

    Attributes:
        architecture: Value of `general.architecture`.
        keys: Key below the architecture's name → field of the model's configuration.
        optional_keys: Those of them that a file may lack.
        tensors: Our name → GGUF's, `{}` standing for the layer's number.
        transposed: GGUF names whose matrices we store (in, out).
        interleaved: GGUF names whose rows GGUF orders for rotary pairs (2i, 2i + 1), where we have (i, i + D/2).
    """

    architecture: str
    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    optional_keys: frozenset[str] = frozenset()
    transposed: frozenset[str] = frozenset()
    interleaved: frozenset[str] = frozenset()

    def gguf_name(self, name: str) -> str:
        """GGUF's name of one of our tensors. Raises ExportError for one that the format has no place for."""
        general, layer = _generalised(name)
        if general not in self.tensors:
            raise ExportError(f"GGUF has no place for the tensor {name} in the architecture {self.architecture}")
        return self.tensors[general].replace("{}", layer)

    def our_name(self, gguf_name: str) -> str | None:
        """Our name of one of GGUF's tensors; None for one that we do not have."""
        general, layer = _generalised(gguf_name)
        for ours, theirs in self.tensors.items():
            if theirs == general:
                return ours.replace("{}", layer)
        return None

    def gguf_shape(self, gguf_name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in GGUF of one of our tensors."""
        return tuple(reversed(shape)) if _generalised(gguf_name)[0] in self.transposed else shape

    def to_gguf(self, gguf_name: str, array: np.ndarray, num_heads: int, num_key_value_heads: int) -> np.ndarray:
        """One of our arrays in GGUF's order."""
        general, _ = _generalised(gguf_name)
        if general in self.transposed:
            return array.T
        if general in self.interleaved:
            heads = num_key_value_heads if "attn_k" in general else num_heads
            # (H · 2 · D/2, …) -> (H · D/2 · 2, …)
            return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        return array

    def from_gguf(self, gguf_name: str, array: np.ndarray, num_heads: int, num_key_value_heads: int) -> np.ndarray:
        """One of GGUF's arrays in our order."""
        general, _ = _generalised(gguf_name)
        if general in self.transposed:
            return array.T
        if general in self.interleaved:
            heads = num_key_value_heads if "attn_k" in general else num_heads
            return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        return array


def _generalised(name: str) -> tuple[str, str]:
    """A tensor's name with `{}` for its layer, and the layer: `blk.3.attn_q.weight` → `blk.{}.attn_q.weight`, `3`."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isascii() and part.isdigit():
            return ".".join([*parts[:place], "{}", *parts[place + 1 :]]), part
    return name, ""


_SHAPE = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_DECODER_SHAPE = {
    **_SHAPE,
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
_OPTIONAL = frozenset(
    {
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "rope.dimension_count",
        "rope.freq_base",
        "vocab_size",
    }
)


def _decoder_tensors(*, biased: tuple[str, ...] = (), qk_norm: bool = False) -> Iterator[tuple[str, str]]:
    yield "model.embed_tokens.weight", "token_embd.weight"
    yield "model.norm.weight", "output_norm.weight"
    yield "lm_head.weight", "output.weight"
    layer = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        **({"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"} if qk_norm else {}),
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for ours, theirs in layer.items():
        yield f"model.layers.{{}}.{ours}.weight", f"blk.{{}}.{theirs}.weight"
        if theirs in biased:
            yield f"model.layers.{{}}.{ours}.bias", f"blk.{{}}.{theirs}.bias"


def _gpt2_tensors() -> Iterator[tuple[str, str]]:
    yield "transformer.wte.weight", "token_embd.weight"
    yield "transformer.wpe.weight", "position_embd.weight"
    layer = {
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }
    for kind in ("weight", "bias"):
        yield f"transformer.ln_f.{kind}", f"output_norm.{kind}"
        for ours, theirs in layer.items():
            yield f"transformer.h.{{}}.{ours}.{kind}", f"blk.{{}}.{theirs}.{kind}"


LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout(
        "gpt2",
        {**_SHAPE, "attention.layer_norm_epsilon": "layer_norm_epsilon"},
        dict(_gpt2_tensors()),
        transposed=frozenset(f"blk.{{}}.{name}.weight" for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")),
    ),
    "llama": Layout(
        "llama",
        _DECODER_SHAPE,
        dict(_decoder_tensors(biased=("attn_q", "attn_k", "attn_v", "attn_output"))),
        optional_keys=_OPTIONAL,
        interleaved=frozenset(
            f"blk.{{}}.{name}.{kind}" for name in ("attn_q", "attn_k") for kind in ("weight", "bias")
        ),
    ),
    "qwen2": Layout(
        "qwen2",
        _DECODER_SHAPE,
        dict(_decoder_tensors(biased=("attn_q", "attn_k", "attn_v"))),
        optional_keys=_OPTIONAL,
    ),
    "qwen3": Layout("qwen3", _DECODER_SHAPE, dict(_decoder_tensors(qk_norm=True)), optional_keys=_OPTIONAL),
}
"""By the model_type of `config.json`. An architecture without a layout cannot leave for GGUF."""


def by_architecture(name: str) -> tuple[str, Layout] | None:
    """Our name and the layout of GGUF's architecture `name`; None for one that we do not have."""
    return next(((ours, layout) for ours, layout in LAYOUTS.items() if layout.architecture == name), None)
