"""A LoRA adapter in PEFT's format, made part of the model that it was trained beside."""

from __future__ import annotations

from pathlib import Path

from inkling import models, peft
from inkling.errors import CheckpointError, ModelError
from inkling.importers import hf
from inkling.importers._imported import ImportedModel
from inkling.peft.files import CONFIG_FILE
from inkling.tensor_files import checksum
from inkling.tokenizer import Tokenizer

WHAT = "a LoRA adapter of PEFT's (adapter_config.json)"
ORDER = 5


def recognises(path: Path) -> bool:
    """A folder with an adapter's configuration."""
    return path.is_dir() and (path / CONFIG_FILE).is_file()


def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
    """Read the base that the adapter names, on this machine, and add the adapter to its weights in fp32."""
    try:
        stored = peft.read_adapter(path)
    except CheckpointError as error:
        raise ModelError(str(error)) from None
    base = Path(stored.base)
    if not stored.base or not base.is_dir():
        named = repr(stored.base) if stored.base else "none"
        raise ModelError(f"{path} names a base model that is not a folder here ({named}): put its path there")
    if stored.base_sha256 and stored.base_sha256 != checksum(base / "model.safetensors"):
        raise ModelError(f"{base} is not the model that {path} was trained beside: its weights are others")
    if tokenizer is None and (path / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(path)  # it may have a chat template that the base has not
    found = hf.read(base, tokenizer)
    model = models.load(found.config.model_type).Model(found.config)
    model.load_state_dict(found.weights)
    peft.attach_stored(model, stored.settings, stored.weights, name=peft.DEFAULT)
    notes = [*found.notes, f"with a rank-{stored.settings.rank} adapter in its weights"]
    return ImportedModel(found.config, peft.merged_weights(model), found.tokenizer, notes)
