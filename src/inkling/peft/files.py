"""Adapters on disk, in the format of Hugging Face's PEFT (0.21): `adapter_config.json`, `adapter_model.safetensors`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inkling import files
from inkling.errors import CheckpointError
from inkling.peft.lora import AdapterSettings
from inkling.tensor_files import read_tensors, write_tensors

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_KEYS = {"lora_A.weight": "A", "lora_B.weight": "B", "lora_magnitude_vector": "magnitude"}
_ABSENT: dict[str, Any] = {
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "lora_bias": False,
}
"""What such a file may ask for that is not computed here, and what it says when it does not."""


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter, read.

    Attributes:
        weights: By the names of `adapter_weights`.
        base: Where its base model was, as the file says; may be empty.
        base_sha256: Checksum of the base's weights; empty in files of PEFT's own.
    """

    settings: AdapterSettings
    weights: dict[str, Tensor]
    base: str
    base_sha256: str


def write_adapter(
    folder: Path,
    weights: dict[str, Tensor],
    settings: AdapterSettings,
    *,
    base: str,
    base_sha256: str,
    turned: bool = False,
) -> None:
    """Write an adapter so that `peft.PeftModel.from_pretrained(base, folder)` opens it.

    Args:
        weights: By the names of `adapter_weights`.
        base: Path of the base model.
        turned: Whether the base stores its matrices (in, out), as GPT-2 does.
    """
    names = {short: theirs for theirs, short in _KEYS.items()}
    modules = sorted({full.rpartition(".")[0] for full in weights})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": sorted({name.rpartition(".")[2] for name in modules}),
        "use_rslora": settings.rank_stabilised,
        "use_dora": settings.dora,
        "fan_in_fan_out": turned,
        "init_lora_weights": True,
        **_ABSENT,
    }
    theirs = {}
    for full, tensor in weights.items():
        module, _, key = full.rpartition(".")
        theirs[f"{_PREFIX}{module}.{names[key]}"] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS_FILE, theirs, {"base_sha256": base_sha256})
    files.write_json(folder / CONFIG_FILE, config)


def read_adapter(folder: Path) -> StoredAdapter:
    """Read one of ours or PEFT's. Raises CheckpointError where it is missing, damaged, or of a kind not known here."""
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = _settings(config)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no adapter: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no adapter that can be used here ({' '.join(str(error).split())})") from None
    tensors, metadata = read_tensors(folder / WEIGHTS_FILE, verify=True)
    weights = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(_PREFIX).replace(".default", "")
        theirs = next((key for key in _KEYS if name.endswith(f".{key}")), None)
        if theirs is None or not full.startswith(_PREFIX):
            raise CheckpointError(f"{folder / WEIGHTS_FILE} holds {full}, which is no part of a LoRA adapter")
        weights[name.removesuffix(theirs) + _KEYS[theirs]] = tensor
    base = str(config.get("base_model_name_or_path") or "")
    return StoredAdapter(settings, weights, base, metadata.get("base_sha256", ""))


def _settings(config: dict[str, Any]) -> AdapterSettings:
    if config.get("peft_type") != "LORA":
        raise ValueError(f"it is {config.get('peft_type')}, not LORA")
    for key, absent in _ABSENT.items():
        if config.get(key, absent) not in (absent, None, [], {}):
            raise ValueError(f"{key} = {config[key]!r} is not computed here")
    targets = config["target_modules"]
    return AdapterSettings(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout") or 0.0,
        targets=[targets] if isinstance(targets, str) else sorted(targets),
        rank_stabilised=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
    )
