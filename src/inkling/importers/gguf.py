"""A GGUF file, as llama.cpp and Inkling write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkling import models
from inkling.errors import ModelError
from inkling.gguf import layout, types, vocabulary
from inkling.gguf.reader import GGUFFile
from inkling.importers._imported import ImportedModel, check_weights
from inkling.tokenizer import Tokenizer

WHAT = "a GGUF file"
ORDER = 10
_MAX_EXPERTS = 4096
_COMPUTED = {"rope_freqs.weight"}


def recognises(path: Path) -> bool:
    """A file that begins with `GGUF`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
    """Read shape, tokenizer and weights; packed weights are unpacked to fp32."""
    file = GGUFFile(path)
    architecture = file.values.get("general.architecture")
    num_experts = file.values.get(f"{architecture}.expert_count") or 0
    if not isinstance(num_experts, int) or num_experts > _MAX_EXPERTS:
        raise ModelError(f"{path} says that it has {num_experts!r} experts")
    found = layout.by_architecture(str(architecture), file.values)
    if found is None:
        known = ", ".join(sorted({each.architecture for each in layout.LAYOUTS.values()}))
        raise ModelError(f"{path} holds a model of the architecture {architecture!r} (known: {known})")
    model_type, spelled = found
    _refuse_other_features(path, file, spelled.architecture)
    tokenizer = tokenizer or _tokenizer(file)
    config = _config(path, file, model_type, spelled)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.vocab_size:,}")
    heads = config.num_attention_heads, config.num_key_value_heads
    weights = {}
    unknown = []
    for name in file.tensors:
        ours = spelled.our_names(name, num_experts)
        if ours is None:
            unknown.append(name)
            continue
        array = spelled.from_gguf(name, file.array(name), *heads)
        if len(ours) > 1 and len(array) != len(ours):
            raise ModelError(f"{path}: {name} holds {len(array)} experts, where {len(ours)} were said")
        for our_name, part in zip(ours, array if len(ours) > 1 else [array], strict=True):
            weights[our_name] = torch.tensor(part)  # a copy: the order in memory is that of the shape
    if set(unknown) - _COMPUTED:
        raise ModelError(f"{path} holds {len(unknown)} tensors without a place here: {', '.join(unknown[:3])}")
    check_weights(config, weights, path)
    packed = sorted({tensor.type_name for tensor in file.tensors.values()} - set(types.FLOAT_TYPES))
    notes = [f"weights packed as {', '.join(packed)} are unpacked; what packing lost stays lost"] if packed else []
    return ImportedModel(config, weights, tokenizer, notes)


def _config(path: Path, file: GGUFFile, model_type: str, spelled: layout.Layout) -> models.ModelConfig:
    prefix = spelled.architecture
    values: dict[str, Any] = {"model_type": model_type}
    for key, field in spelled.keys.items():
        value = file.values.get(f"{prefix}.{key}")
        if value is None and key not in spelled.optional_keys:
            raise ModelError(f"{path} does not say its {prefix}.{key}")
        if isinstance(value, float):
            value = float(str(np.float32(value)))  # it is kept in fp32: 1e-05 and not 9.9999997e-06
        if value is not None and values.setdefault(field, value) != value:
            raise ModelError(f"{path}: {prefix}.{key} is {value}, where {values[field]} was said before")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{path} has no embedding matrix token_embd.weight")
    values["vocab_size"] = embedding.shape[0]
    if model_type == "qwen3_moe":
        values["norm_topk_prob"] = True  # what llama.cpp does
    if "qk_head_dim" in values:
        values["qk_nope_head_dim"] = values["qk_head_dim"] - values["qk_rope_head_dim"]
    if model_type != "gpt2":
        values["rope_scaling"] = layout.rope_scaling(file.values, prefix)
        values["tie_word_embeddings"] = "output.weight" not in file.tensors
        values["attention_bias"] = any(name.endswith("attn_output.bias") for name in file.tensors)
    return models.read_config(_as_spelled(model_type, values))


def _as_spelled(model_type: str, values: dict[str, Any]) -> dict[str, Any]:
    spellings = models.load(model_type).Config.spellings
    return {spellings.get(key, key): value for key, value in values.items()}


def _refuse_other_features(path: Path, file: GGUFFile, architecture: str) -> None:
    key, value = "attention.sliding_window", file.values.get(f"{architecture}.attention.sliding_window")
    if value not in (None, 0) and architecture != "gemma2":
        raise ModelError(f"{path} needs what Inkling does not compute: {architecture}.{key} = {value!r}")
    if "rope_freqs.weight" in file.tensors and not (file.array("rope_freqs.weight") == 1).all():
        raise ModelError(f"{path} needs what Inkling does not compute: stretched rotary positions (rope_freqs)")


def _tokenizer(file: GGUFFile) -> Tokenizer:
    tokens, merges, pattern, added = vocabulary.from_keys(file.values)
    return Tokenizer.from_vocabulary(
        tokens, merges, pattern=pattern, added_tokens=added, chat_template=vocabulary.chat_template_of(file.values)
    )
