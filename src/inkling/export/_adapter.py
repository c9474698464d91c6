"""The adapter of a tuned run by itself, in the format of Hugging Face's PEFT: `inkling export RUN hf --adapter`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch

from inkling import checkpoint, files, peft
from inkling.checkpoint import StoredModel
from inkling.errors import ExportError
from inkling.export import hf
from inkling.export._card import adapter_card
from inkling.export._verification import Verification, questions, verdict

TYPES = ("f32",)
_MAX_KL, _MAX_PACKED_KL = 1e-6, 0.1
"""The second where the adapter learned beside packed matrices, which the run's merged weights are made of."""

objections = hf.objections


def default_path(stored: StoredModel, type_name: str) -> Path:
    """`runs/notes-sft` → `notes-sft-adapter`, here."""
    return Path(f"{stored.folder.resolve().name}-adapter")


def write(stored: StoredModel, path: Path, type_name: str) -> None:
    """Write the folder: the adapter, the tokenizer, a card that names the base. Raises ExportError without one."""
    source = stored.folder / checkpoint.ADAPTER_FOLDER
    if not source.is_dir():
        raise ExportError(f"{stored.folder} was not tuned with an adapter: export it without --adapter")
    base = peft.read_adapter(source).base
    with files.new_folder(path) as folder:
        for file in sorted(source.iterdir()):
            shutil.copyfile(file, folder / file.name)
        files.write_text(folder / "README.md", adapter_card(stored, path.name, base))


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """Open base and adapter in `peft`, and compare with the merged model; None where that is not installed."""
    if not all(importlib.util.find_spec(package) for package in ("transformers", "peft")):
        return None
    import transformers

    import peft as theirs

    base = Path(peft.read_adapter(path).base)
    if not base.is_dir():
        raise ExportError(f"{path} is written, but its base {base} is gone, so nothing can be compared: --no-verify")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32)
    model = theirs.PeftModel.from_pretrained(model, str(path))
    asked = questions(stored)
    answers = hf.ask(model, path, asked, stored, f"peft {importlib.metadata.version('peft')}")
    is_plain = stored.record is None or stored.record.settings.get("adapter") == "lora"
    return verdict(stored, asked, answers, max_kl=_MAX_KL if is_plain else _MAX_PACKED_KL, exact=is_plain)
