"""How each architecture is spelled in a GGUF file: the keys of its shape, the names and orders of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inkling.errors import ExportError


@dataclass(frozen=True)
class Layout:
    """One architecture's spelling.

    Attributes:
        architecture: Value of `general.architecture`.
        keys: Key below the architecture's name → field of the model's configuration.
        optional_keys: Those of them that a file may lack.
        tensors: Our name → GGUF's, `{}` standing for the layer's number; a second one in ours for the expert's, whose
            matrices GGUF holds as one tensor.
        transposed: GGUF names whose matrices we store (in, out).
        interleaved: GGUF names whose rows GGUF orders for rotary pairs (2i, 2i + 1), where we have (i, i + D/2).
        centred: Ends of the GGUF names of norms whose gains are 1 more than the weights that we hold.
        has_experts: Whether this is the spelling of mixtures, where one name may stand for two architectures.
        constants: Keys below the architecture's name that are the same for every model, and tell two of ours apart.
    """

    architecture: str
    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    optional_keys: frozenset[str] = frozenset()
    transposed: frozenset[str] = frozenset()
    interleaved: frozenset[str] = frozenset()
    centred: tuple[str, ...] = ()
    has_experts: bool = False
    constants: Mapping[str, int] = field(default_factory=dict)

    def gguf_name(self, name: str) -> str:
        """GGUF's name of one of our tensors. Raises ExportError for one that the format has no place for."""
        general, numbers = _generalised(name)
        if general not in self.tensors:
            raise ExportError(f"GGUF has no place for the tensor {name} in the architecture {self.architecture}")
        return self.tensors[general].replace("{}", "".join(numbers[:1]))

    def gathered(self, names: Iterable[str]) -> dict[str, list[str]]:
        """GGUF's names of our tensors → ours: one, or that of each expert in their order."""
        ours: dict[str, list[str]] = {}
        for name in names:
            ours.setdefault(self.gguf_name(name), []).append(name)
        for parts in ours.values():
            parts.sort(key=lambda name: [int(number) for number in _generalised(name)[1]])
        return ours

    def our_names(self, gguf_name: str, num_experts: int) -> list[str] | None:
        """Our names of one of GGUF's tensors, one or that of each expert; None for one that we do not have."""
        general, numbers = _generalised(gguf_name)
        for ours, theirs in self.tensors.items():
            if theirs == general:
                name = ours.replace("{}", "".join(numbers), 1)
                return [name.replace("{}", str(expert)) for expert in range(num_experts)] if "{}" in name else [name]
        return None

    def gguf_shape(self, gguf_name: str, shape: tuple[int, ...], count: int) -> tuple[int, ...]:
        """The shape in GGUF of one of our tensors, or of the tensors of `count` experts."""
        if count > 1:
            return (count, *shape)
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
        if self.centred and general.endswith(self.centred):
            return array + np.float32(1)
        return array

    def from_gguf(self, gguf_name: str, array: np.ndarray, num_heads: int, num_key_value_heads: int) -> np.ndarray:
        """One of GGUF's arrays in our order."""
        general, _ = _generalised(gguf_name)
        if general in self.transposed:
            return array.T
        if general in self.interleaved:
            heads = num_key_value_heads if "attn_k" in general else num_heads
            return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        if self.centred and general.endswith(self.centred):
            return array - np.float32(1)
        return array


def _generalised(name: str) -> tuple[str, list[str]]:
    """A tensor's name with `{}` for its numbers, and these: `blk.3.attn_q.weight` → `blk.{}.attn_q.weight`, `["3"]`."""
    parts = name.split(".")
    numbers = [part for part in parts if part.isascii() and part.isdigit()]
    return ".".join("{}" if part in numbers else part for part in parts), numbers


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


_DENSE = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def _experts(place: str, gate: str, up: str, down: str) -> dict[str, str]:
    """The tensors of a mixture."""
    return {
        "post_attention_layernorm": "ffn_norm",
        f"{place}.gate": "ffn_gate_inp",
        f"{place}.experts.{{}}.{gate}": "ffn_gate_exps",
        f"{place}.experts.{{}}.{up}": "ffn_up_exps",
        f"{place}.experts.{{}}.{down}": "ffn_down_exps",
    }


def _decoder_tensors(
    *, biased: tuple[str, ...] = (), qk_norm: bool = False, feed_forward: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
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
        **(feed_forward or {"post_attention_layernorm": "ffn_norm", **_DENSE}),
    }
    for ours, theirs in layer.items():
        yield f"model.layers.{{}}.{ours}.weight", f"blk.{{}}.{theirs}.weight"
        if theirs in biased:
            yield f"model.layers.{{}}.{ours}.bias", f"blk.{{}}.{theirs}.bias"


def _latent_tensors() -> Iterator[tuple[str, str]]:
    """DeepSeek's: the matrix that makes keys and values of latents stays whole, as in llama.cpp's older files."""
    yield from _decoder_tensors(feed_forward={**_experts("mlp", "gate_proj", "up_proj", "down_proj"), **_DENSE})
    layer = {
        **{f"self_attn.{name}": name.replace("q_", "attn_q_") for name in ("q_a_proj", "q_b_proj")},
        "self_attn.q_a_layernorm": "attn_q_a_norm",
        "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
        "self_attn.kv_a_layernorm": "attn_kv_a_norm",
        "self_attn.kv_b_proj": "attn_kv_b",
        **{f"mlp.shared_experts.{name}_proj": f"ffn_{name}_shexp" for name in ("gate", "up", "down")},
    }
    for ours, theirs in layer.items():
        yield f"model.layers.{{}}.{ours}.weight", f"blk.{{}}.{theirs.removesuffix('_proj')}.weight"
    yield "model.layers.{}.mlp.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias"


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


_QK_ROWS = frozenset(f"blk.{{}}.{name}.{kind}" for name in ("attn_q", "attn_k") for kind in ("weight", "bias"))
_EXPERT_KEYS = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}

_LATENT = {
    **{
        key: field
        for key, field in _DECODER_SHAPE.items()
        if key not in ("attention.value_length", "rope.dimension_count")
    },
    **_EXPERT_KEYS,
    "attention.key_length": "qk_head_dim",
    "attention.value_length": "v_head_dim",
    "rope.dimension_count": "qk_rope_head_dim",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_weights_scale": "routed_scaling_factor",
}

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
        interleaved=_QK_ROWS,
    ),
    "mistral": Layout("llama", _DECODER_SHAPE, dict(_decoder_tensors()), optional_keys=_OPTIONAL, interleaved=_QK_ROWS),
    "mixtral": Layout(
        "llama",
        {**_DECODER_SHAPE, **_EXPERT_KEYS},
        dict(_decoder_tensors(feed_forward=_experts("block_sparse_moe", "w1", "w3", "w2"))),
        optional_keys=_OPTIONAL,
        interleaved=_QK_ROWS,
        has_experts=True,
    ),
    "qwen3_moe": Layout(
        "qwen3moe",
        {
            **_DECODER_SHAPE,
            **_EXPERT_KEYS,
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        dict(_decoder_tensors(qk_norm=True, feed_forward=_experts("mlp", "gate_proj", "up_proj", "down_proj"))),
        optional_keys=_OPTIONAL,
        has_experts=True,
    ),
    "gemma2": Layout(
        "gemma2",
        {
            **{key: field for key, field in _DECODER_SHAPE.items() if not key.startswith("rope.dim")},
            "attention.sliding_window": "sliding_window",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        dict(
            _decoder_tensors(
                feed_forward={
                    "post_attention_layernorm": "post_attention_norm",
                    "pre_feedforward_layernorm": "ffn_norm",
                    "post_feedforward_layernorm": "post_ffw_norm",
                    **_DENSE,
                }
            )
        ),
        optional_keys=_OPTIONAL,
        centred=("norm.weight",),
    ),
    "deepseek_v2": Layout(
        "deepseek2",
        _LATENT,
        dict(_latent_tensors()),
        optional_keys=_OPTIONAL | {"attention.q_lora_rank"},
        has_experts=True,
        constants={"expert_gating_func": 1},
    ),
    "deepseek_v3": Layout(
        "deepseek2",
        {**_LATENT, "expert_weights_norm": "norm_topk_prob"},
        dict(_latent_tensors()),
        optional_keys=_OPTIONAL | {"attention.q_lora_rank"},
        has_experts=True,
        constants={"expert_gating_func": 2},
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


def by_architecture(name: str, values: Mapping[str, Any]) -> tuple[str, Layout] | None:
    """Our name and the layout of GGUF's architecture `name` in a file with these keys; None for one we do not have."""
    has_experts = bool(values.get(f"{name}.expert_count"))
    for ours, layout in LAYOUTS.items():
        same = all(values.get(f"{name}.{key}", value) == value for key, value in layout.constants.items())
        if layout.architecture == name and layout.has_experts == has_experts and same:
            return ours, layout
    return None


def objections(values: Mapping[str, Any]) -> list[str]:
    """What of a model's `config.json` llama.cpp computes otherwise; empty when it computes the same."""
    reasons = []
    kind, layers = values["model_type"], range(values.get("num_hidden_layers") or 0)
    window, context = values.get("sliding_window"), values.get("max_position_embeddings", 0)
    if kind != "gemma2" and window is not None and window < context:
        reasons.append(f"llama.cpp would not keep to the window of {window} tokens in this architecture")
    if kind == "qwen3_moe":
        if not values["norm_topk_prob"]:
            reasons.append("llama.cpp lets the weights of the chosen experts add up to 1 (norm_topk_prob)")
        if values["decoder_sparse_step"] != 1 or values["mlp_only_layers"]:
            reasons.append("llama.cpp has experts in all layers")
    if kind in ("deepseek_v2", "deepseek_v3"):
        if (values["q_lora_rank"] is None) != (layers.stop in _LITE_LAYERS):
            reasons.append("llama.cpp makes queries through q_lora_rank, in all but models of 26 and 27 layers")
        if values["rope_scaling"] is not None:
            reasons.append("llama.cpp stretches this architecture in another way")
    if kind == "gemma2":
        if values["query_pre_attn_scalar"] != values["head_dim"]:
            reasons.append("llama.cpp divides scores by the root of the head size (query_pre_attn_scalar)")
        kinds = ["sliding_attention", "full_attention"]
        if values["layer_types"] != [kinds[layer % 2] for layer in layers] or window is None:
            reasons.append("llama.cpp has a window in every other layer, the first one among them")
        if values["attn_logit_softcapping"] is None or values["final_logit_softcapping"] is None:
            reasons.append("llama.cpp caps scores and logits")
        if not values["tie_word_embeddings"]:
            reasons.append("llama.cpp takes the embedding for the head")
    scaling = values.get("rope_scaling") or {}
    others = set(scaling) - {"rope_type", "factor", "original_max_position_embeddings"} - _LLAMA3_KEYS
    if scaling.get("rope_type") == "yarn" and others:
        reasons.append(f"llama.cpp stretches without {', '.join(sorted(others))}")
    return reasons


_LITE_LAYERS = (26, 27)
_LLAMA3_KEYS = {"low_freq_factor", "high_freq_factor"}


def rope_keys(scaling: Mapping[str, Any] | None) -> dict[str, Any]:
    """Keys below the architecture's name that say how positions are stretched."""
    if scaling is None or scaling["rope_type"] == "llama3":  # which is a tensor, `rope_freqs.weight`
        return {}
    keys = {"rope.scaling.type": scaling["rope_type"], "rope.scaling.factor": float(scaling["factor"])}
    length = scaling.get("original_max_position_embeddings")
    return keys if length is None else {**keys, "rope.scaling.original_context_length": length}


def rope_scaling(values: Mapping[str, Any], architecture: str) -> dict[str, Any] | None:
    """What these keys say, as `rope_scaling` of a `config.json`."""
    kind = values.get(f"{architecture}.rope.scaling.type", "none")
    factor = values.get(f"{architecture}.rope.scaling.factor", 1.0)
    if kind == "none" or factor in (0, 1):
        return None
    length = values.get(f"{architecture}.rope.scaling.original_context_length")
    return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": length}
