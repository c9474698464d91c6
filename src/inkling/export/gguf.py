"""GGUF: one file for llama.cpp, and for Ollama, LM Studio and others that are built on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inkling import files, models
from inkling.checkpoint import StoredModel
from inkling.errors import ExportError, MissingExtraError
from inkling.export import _llama_cpp
from inkling.export._chat import CHAT
from inkling.export._elsewhere import ask
from inkling.export._verification import Answers, Verification, questions, verdict
from inkling.gguf import layout, types, vocabulary
from inkling.models import ModelConfig
from inkling.tokenizer import Tokenizer

TYPES = ("f16", *(name for name in types.FILE_TYPES if name != "f16"))
_QUANTIZATION_VERSION = 2
_PORTION = 1 << 21
"""Weights that are packed and written at once."""
_MAX_KL = {"f32": 1e-5, "f16": 1e-3, "bf16": 1e-2}
"""Beyond which a file is wrong, and not merely rounded."""
_MAX_FINITE_KL = sys.float_info.max
"""Packed weights may differ by any number."""


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """Why llama.cpp could not run such a model; empty when it can."""
    found = layout.LAYOUTS.get(config.model_type)
    if found is None:
        return [f"llama.cpp does not compute {config.model_type}"]
    reasons = []
    try:
        for name in models.without_memory(config).state_dict():
            found.gguf_name(name)
    except ExportError as error:
        reasons.append(str(error))
    reasons += layout.objections(config.to_dict())
    if tokenizer is not None:
        content = vocabulary.content_of(tokenizer.to_json())
        reasons += vocabulary.objections(content, tokenizer.pattern_name, tokenizer.is_byte_level)
    return reasons


def default_path(stored: StoredModel, type_name: str) -> Path:
    """`runs/notes` as F16 → `notes-f16.gguf`, here."""
    return Path(f"{stored.folder.resolve().name}-{type_name}.gguf")


# ---------------------------------------------------------------- writing


def write(stored: StoredModel, path: Path, type_name: str) -> None:
    """Write the file. One tensor at a time is in memory, and some packed rows of it.

    Raises ExportError when the model cannot be said in this format, and MissingExtraError without the `gguf` package.
    """
    spelled = layout.LAYOUTS[stored.config.model_type]
    ours = spelled.gathered(stored.shapes)
    shapes = {name: spelled.gguf_shape(name, stored.shapes[parts[0]], len(parts)) for name, parts in ours.items()}
    chosen = types.tensor_types(shapes, type_name, stored.config.num_hidden_layers)
    files.write_file(path, lambda temporary: _write(stored, temporary, spelled, ours, shapes, chosen, type_name))


def _write(
    stored: StoredModel,
    path: Path,
    spelled: layout.Layout,
    ours: dict[str, list[str]],
    shapes: dict[str, tuple[int, ...]],
    chosen: dict[str, str],
    type_name: str,
) -> None:
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "a GGUF file") from None
    writer = gguf.GGUFWriter(path, spelled.architecture)
    _add_keys(writer, stored, spelled, type_name)
    frequencies = _frequency_factors(stored.config)
    if frequencies is not None:
        number = types.ggml_type("F32")
        writer.add_tensor_info("rope_freqs.weight", frequencies.shape, frequencies.dtype, frequencies.nbytes, number)
    for name, shape in shapes.items():
        number = types.ggml_type(chosen[name])
        writer.add_tensor_info(name, shape, np.dtype(np.float32), types.num_bytes(chosen[name], shape), number)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        arrays = _arrays(stored, spelled, ours, chosen)
        _write_data(writer, arrays if frequencies is None else chain([[frequencies]], arrays))
    finally:
        writer.close()


def _arrays(
    stored: StoredModel, spelled: layout.Layout, ours: dict[str, list[str]], chosen: dict[str, str]
) -> Iterator[Iterator[np.ndarray]]:
    """The packed numbers of each tensor, some rows at a time; experts lie below each other."""
    heads = stored.config.num_attention_heads, stored.config.num_key_value_heads

    def portions(name: str, parts: list[str]) -> Iterator[np.ndarray]:
        for _, tensor in stored.tensors(parts):
            array = spelled.to_gguf(name, _to_numpy(tensor), *heads)
            num_rows = max(1, _PORTION * len(array) // array.size)
            for start in range(0, len(array), num_rows):
                yield types.encode(np.ascontiguousarray(array[start : start + num_rows]), chosen[name])

    return (portions(name, parts) for name, parts in ours.items())


def _write_data(writer: Any, tensors: Iterable[Iterable[np.ndarray]]) -> None:
    """What follows the header: each tensor from a multiple of the alignment on. The package takes whole ones only."""
    file = writer.fout[0]
    for portions in tensors:
        writer.write_padding(file, file.tell())
        for portion in portions:
            portion.tofile(file)
    writer.write_padding(file, file.tell())


def _frequency_factors(config: ModelConfig) -> np.ndarray | None:
    """What rotary frequencies are divided by, (D/2), where a file says that by a tensor."""
    scaling = getattr(config, "rope_scaling", None)
    if scaling is None or scaling.rope_type != "llama3":
        return None
    theta: float = getattr(config, "rope_theta")  # noqa: B009 - of the architectures that rotate
    plain = models.inverse_frequencies(config.head_dim, theta)
    return _to_numpy(plain / scaling.frequencies(plain, theta))


def _to_numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.float().numpy()
    return array


def _add_keys(writer: Any, stored: StoredModel, spelled: layout.Layout, type_name: str) -> None:
    import gguf

    config, tokenizer = stored.config, stored.tokenizer
    writer.add_name(stored.folder.resolve().name)
    writer.add_file_type(types.FILE_TYPES[type_name].number)
    if type_name not in ("f32", "f16", "bf16"):
        writer.add_quantization_version(_QUANTIZATION_VERSION)
    shape = {key: getattr(config, field) for key, field in spelled.keys.items()} | dict(spelled.constants)
    stretched = layout.rope_keys(config.to_dict().get("rope_scaling"))
    for key, value in stretched.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"{spelled.architecture}.{key}", value)
    for key, value in shape.items():
        if value is not None:
            add = {float: writer.add_float32, bool: writer.add_bool, int: writer.add_uint32}[type(value)]
            add(f"{spelled.architecture}.{key}", value)
    assert tokenizer.pattern_name is not None
    keys = vocabulary.to_keys(
        vocabulary.content_of(tokenizer.to_json()),
        tokenizer.pattern_name,
        vocab_size=config.vocab_size,
        end_id=tokenizer.eot_id,
        begins_with_end=True,
    )
    for key, value in keys.items():
        name = f"tokenizer.ggml.{key}"
        if isinstance(value, list) and value:
            kind = gguf.GGUFValueType.INT32 if isinstance(value[0], int) else None
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, sub_type=kind)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
    if tokenizer.chat_template is not None:
        writer.add_string("tokenizer.chat_template", tokenizer.chat_template)


# ---------------------------------------------------------------- verifying


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """Open the file in llama.cpp, and compare; None without the `xllamacpp` package."""
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    asked = questions(stored)
    job = {
        "model": str(path.resolve()),
        "context": len(asked.prompt_ids) + asked.num_greedy + 8,
        "num_threads": max(1, (os.cpu_count() or 2) // 2),
        "vocab_size": stored.config.vocab_size,
        "whole_token": stored.tokenizer.eot_id,
        "chat": CHAT if stored.tokenizer.chat_template else None,
        **asdict(asked),
    }
    found, table = ask(_llama_cpp.__file__, job, "llama.cpp")
    runtime = f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"
    answers = Answers(runtime, [table], found.get("greedy", []), found["plain"], found["special"], found.get("chat"))
    return verdict(stored, asked, answers, max_kl=_MAX_KL.get(type_name, _MAX_FINITE_KL), exact=type_name == "f32")
