"""A nanoGPT checkpoint, `ckpt.pt`: GPT-2's architecture, with or without biases."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from inkling import models
from inkling.errors import ModelError
from inkling.importers._imported import ImportedModel, check_weights, load_checkpoint, to_fp32
from inkling.tokenizer import Tokenizer

WHAT = "a nanoGPT checkpoint (ckpt.pt)"
ORDER = 40
_COMPILED = "_orig_mod."
_STORED_OTHERWISE = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""Matrices that nanoGPT stores (out, in) and GPT-2's checkpoints (in, out)."""


def recognises(path: Path) -> bool:
    """A `.pt` file that `torch.save` wrote, or a folder with a `ckpt.pt`."""
    file = path / "ckpt.pt" if path.is_dir() else path
    return file.suffix == ".pt" and zipfile.is_zipfile(file)


def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
    """Read shape and weights. A nanoGPT checkpoint does not hold its tokenizer: it has to be given."""
    file = path / "ckpt.pt" if path.is_dir() else path
    content = load_checkpoint(file)
    shape, state = content.get("model_args"), content.get("model")
    if not isinstance(shape, dict) or not isinstance(state, dict):
        raise ModelError(f"{file} is no nanoGPT checkpoint: it has no model_args and model")
    if tokenizer is None:
        raise ModelError(
            f"{file} does not hold its tokenizer. Give it: --tokenizer FOLDER, or --tokenizer tiktoken:gpt2 for a "
            "model of nanoGPT's openwebtext or shakespeare data"
        )
    try:
        values = {
            "model_type": "gpt2",
            "vocab_size": shape["vocab_size"],
            "n_embd": shape["n_embd"],
            "n_layer": shape["n_layer"],
            "n_head": shape["n_head"],
            "n_positions": shape["block_size"],
            "activation_function": "gelu",  # nanoGPT's since 2023; the file does not say
        }
    except KeyError as error:
        raise ModelError(f"{file} is no nanoGPT checkpoint: its model_args lack {error}") from None
    config = models.read_config(values)
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelError(f"{file}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.vocab_size:,}")
    if any(not isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{file} is no nanoGPT checkpoint: its model holds something else than tensors")
    weights = {name.removeprefix(_COMPILED): to_fp32(name, tensor) for name, tensor in state.items()}
    weights = {
        name: tensor.T.contiguous() if name.endswith(_STORED_OTHERWISE) else tensor
        for name, tensor in weights.items()
        if name != "lm_head.weight" and not name.endswith(".attn.bias")
    }
    notes = _add_missing_biases(config, weights)
    check_weights(config, weights, file)
    return ImportedModel(config, weights, tokenizer, notes)


def _add_missing_biases(config: models.ModelConfig, weights: dict[str, Tensor]) -> list[str]:
    """A model trained without biases is one whose biases are 0."""
    missing = [
        (name, tensor.shape)
        for name, tensor in models.without_memory(config).state_dict().items()
        if name.endswith(".bias") and name not in weights
    ]
    weights.update({name: torch.zeros(shape) for name, shape in missing})
    return [f"{len(missing)} biases are added, all 0: the model was trained without"] if missing else []
