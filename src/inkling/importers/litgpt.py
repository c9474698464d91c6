"""A litgpt checkpoint folder, `lit_model.pth` and `model_config.yaml`, of a llama-like model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from inkling import models
from inkling.errors import ModelError
from inkling.importers._imported import ImportedModel, check_weights, load_checkpoint, to_fp32
from inkling.tokenizer import Tokenizer

WHAT = "a litgpt checkpoint folder"
ORDER = 20
_WEIGHTS, _CONFIG = "lit_model.pth", "model_config.yaml"
_REQUIRED = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "lm_head_bias": False,
    "norm_qk_type": "default",
}
_MUST_BE_OFF = (
    "scale_embeddings",
    "sliding_window_size",
    "attention_logit_softcapping",
    "final_logit_softcapping",
    "rope_adjustments",
    "rope_interleave",
    "n_expert",
    "post_attention_norm",
    "post_mlp_norm",
    "attention_scores_scalar",
    "latent_attention",
)
_NAMES = {
    "attn.proj.": "self_attn.o_proj.",
    "attn.norm_q.": "self_attn.q_norm.",
    "attn.norm_k.": "self_attn.k_norm.",
    "norm_1.": "input_layernorm.",
    "norm_2.": "post_attention_layernorm.",
    "mlp.fc_1.": "mlp.gate_proj.",
    "mlp.fc_2.": "mlp.up_proj.",
    "mlp.proj.": "mlp.down_proj.",
}
_OUTSIDE_LAYERS = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}


def recognises(path: Path) -> bool:
    """A folder with litgpt's two files."""
    return path.is_dir() and (path / _WEIGHTS).is_file() and (path / _CONFIG).is_file()


def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
    """Read shape, tokenizer and weights."""
    shape = _read_yaml(path / _CONFIG)
    refused = [f"{key}={shape[key]!r}" for key, value in _REQUIRED.items() if shape.get(key, value) != value]
    refused += [f"{key}={shape[key]!r}" for key in _MUST_BE_OFF if shape.get(key)]
    if shape.get("rope_condense_ratio", 1) != 1:
        refused.append(f"rope_condense_ratio={shape['rope_condense_ratio']!r}")
    if refused:
        raise ModelError(f"{path} needs what Inkling does not compute as litgpt does: {', '.join(refused)}")
    content = load_checkpoint(path / _WEIGHTS)
    state = content.get("model", content)
    if not isinstance(state, dict) or any(not isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{path / _WEIGHTS} holds no weights")
    config = _config(path, shape, "lm_head.weight" in state)
    tokenizer = tokenizer or Tokenizer.load(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.vocab_size:,}")
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        weights.update(_ours(name, to_fp32(name, tensor), config))
    check_weights(config, weights, path)
    return ImportedModel(config, weights, tokenizer)


def _config(path: Path, shape: dict[str, Any], has_head: bool) -> models.ModelConfig:
    try:
        heads, width = shape["n_head"], shape["n_embd"]
        values = {
            "model_type": "qwen3" if shape.get("norm_qk") else "qwen2" if shape.get("attn_bias") else "llama",
            "vocab_size": shape["padded_vocab_size"],
            "hidden_size": width,
            "intermediate_size": shape["intermediate_size"],
            "num_hidden_layers": shape["n_layer"],
            "num_attention_heads": heads,
            "num_key_value_heads": shape.get("n_query_groups") or heads,
            "head_dim": shape.get("head_size") or width // heads,
            "max_position_embeddings": shape["block_size"],
            "rms_norm_eps": shape["norm_eps"],
            "rope_theta": float(shape.get("rope_base", 10_000)),
            "tie_word_embeddings": not has_head,
        }
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{path / _CONFIG} does not describe a model ({error!r})") from None
    return models.read_config(values)


def _ours(name: str, tensor: Tensor, config: models.ModelConfig) -> dict[str, Tensor]:
    """One of litgpt's tensors under our name; queries, keys and values are one matrix there."""
    if name in _OUTSIDE_LAYERS:
        return {_OUTSIDE_LAYERS[name]: tensor}
    layer, _, rest = name.removeprefix("transformer.h.").partition(".")
    place = f"model.layers.{layer}."
    if rest.startswith("attn.qkv."):
        kind = rest.removeprefix("attn.qkv.")
        sizes = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
        if tensor.shape[0] != sum(sizes) * config.head_dim:
            raise ModelError(f"the tensor {name} has {tensor.shape[0]} rows instead of {sum(sizes) * config.head_dim}")
        parts = torch.split(tensor, [size * config.head_dim for size in sizes])
        return {
            f"{place}self_attn.{role}_proj.{kind}": part.contiguous() for role, part in zip("qkv", parts, strict=True)
        }
    for theirs, ours in _NAMES.items():
        if rest.startswith(theirs):
            return {place + ours + rest.removeprefix(theirs): tensor}
    return {name: tensor}  # without a place here, which is said when all are known


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{path} is damaged ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged (it holds no settings)")
    return content
