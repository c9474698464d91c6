"""A local Hugging Face folder: `config.json`, safetensors, a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inkling import models
from inkling.errors import ModelError, reason_of
from inkling.importers._imported import ImportedModel, check_weights, to_fp32
from inkling.tokenizer import Tokenizer

WHAT = "a Hugging Face folder"
ORDER = 30
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_JSON_BYTES = 1 << 26
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of names of tables that old files hold among the weights; they are computed here."""


def recognises(path: Path) -> bool:
    """A folder with a `config.json`."""
    return path.is_dir() and (path / "config.json").is_file()


def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
    """Read configuration, tokenizer and weights. No code of the folder is run, and no pickle is opened."""
    values = _read_json(path / "config.json")
    config = _read_config(values, path)
    notes = []
    tokenizer = tokenizer or Tokenizer.load(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.vocab_size:,}")
    _ = tokenizer.eot_id  # an error now and not when it is used
    weights = {name: to_fp32(name, tensor) for name, tensor in _tensors(path)}
    weights = _our_names(weights, config.model_type)
    if getattr(config, "tie_word_embeddings", True) and weights.pop("lm_head.weight", None) is not None:
        notes.append("lm_head.weight is left out: the embedding is the head")
    check_weights(config, weights, path)
    return ImportedModel(config, weights, tokenizer, notes)


def _read_config(values: dict[str, Any], path: Path) -> models.ModelConfig:
    if "auto_map" in values:
        raise ModelError(f"{path} asks for code of its own (auto_map in config.json), which is never run: refused")
    try:
        return models.read_config(values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _our_names(weights: dict[str, Tensor], model_type: str) -> dict[str, Tensor]:
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(_BUFFERS)}
    if model_type == "gpt2" and not any(name.startswith("transformer.") for name in kept):
        return {f"transformer.{name}": tensor for name, tensor in kept.items()}
    return kept


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the folder's safetensors files."""
    for name in _weight_files(path):
        try:
            with safe_open(path / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    yield key, file.get_tensor(key)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path / name} is damaged ({reason_of(error)})") from None


def _weight_files(path: Path) -> list[str]:
    if (path / _WEIGHTS).is_file():
        return [_WEIGHTS]
    if (path / _INDEX).is_file():
        named = _read_json(path / _INDEX).get("weight_map")
        if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named.values()):
            raise ModelError(f"{path / _INDEX} names no files")
        for name in named.values():
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ModelError(f"{path / _INDEX} names {name!r}, no safetensors file of this folder: refused")
        return sorted(set(named.values()))
    pickles = sorted([*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")])
    if pickles:
        raise ModelError(
            f"{path} holds its weights as a pickle ({pickles[0].name}), which can run code when it is opened: refused. "
            "Convert it to safetensors first"
        )
    raise ModelError(f"{path} holds no weights: it has no {_WEIGHTS}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path} is larger than any such file: {path.stat().st_size:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({reason_of(error)})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged (it is no JSON object)")
    return content
