"""`inkling import`: a model that others made, as a run of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import inkling
from inkling import checkpoint, export, files, importers, machine, models
from inkling.checkpoint import RunRecord, StoredModel
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import CheckpointError
from inkling.export import Verification
from inkling.tokenizer import Tokenizer

RUNTIME_OF = {"hf": ("hf", "f32"), "gguf": ("gguf", "q8_0")}
"""Kind of source → the export target whose runtime opens it, and the type whose differences are expected there."""
_SUSPICIOUS_KL = 0.05
"""Nats beyond which a model was not read as it was meant, whatever its runtime rounds."""


class Settings(CommandSettings):
    """Take in a model that others made; then train, evaluate, chat, and export it like any run.

    A local Hugging Face folder (gpt2, llama, mistral, qwen2, qwen3, mixtral, qwen3_moe, gemma2), a GGUF file, an
    adapter of PEFT's, nanoGPT's ckpt.pt, or a litgpt checkpoint folder. The source is never touched. What cannot be
    taken in is named before anything is written; where transformers (or llama.cpp, for GGUF) is installed, its
    probabilities on the source are compared with ours.

    Example: inkling import SmolLM2-135M -o runs/smol
    Example: inkling import ckpt.pt --tokenizer tiktoken:gpt2 -o runs/nano
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    source: Positional[Path]
    """Folder or file."""
    out: Path | None = None
    """New run directory. Default: runs/NAME, after the source."""
    tokenizer: str | None = None
    """A tokenizer to use instead of the source's own: a folder, a tokenizer.json, or tiktoken:NAME."""
    verify: bool = True
    """Compare with the source's own runtime, where that is installed."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Read, write, compare."""
    out = settings.out or Path("runs") / settings.source.resolve().stem
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; choose another with -o")
    tokenizer = Tokenizer.load(settings.tokenizer) if settings.tokenizer is not None else None
    kind, model = importers.read(settings.source, tokenizer)
    model_parameters = models.num_parameters(model.config)
    record = RunRecord(
        status="imported",
        versions={"inkling": inkling.__version__},
        hardware=machine.summary(),
        data={"imported_from": str(settings.source.resolve()), "kind": kind},
        tokenizer_sha256=model.tokenizer.sha256,
        num_parameters=model_parameters,
    )
    with files.new_folder(out) as folder:
        checkpoint.save_model(folder, models.without_memory(model.config), model.tokenizer, model.weights)
        checkpoint.write_run(folder, record)
    found = None
    try:
        found = compare(checkpoint.open_model(out), kind, settings) if settings.verify else None
    except Exception as error:  # whatever another program raises; the import itself is done
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        model.notes.append(f"warning: its own runtime cannot open the source: {reason}")
    result = {
        "run": str(out),
        "kind": kind,
        "arch": model.config.model_type,
        "num_parameters": model_parameters,
        "notes": model.notes,
        "verification": found.as_dict() if found is not None else None,
    }
    if settings.as_json:
        print(json.dumps(result))
    else:
        print_result(result, found)


def compare(stored: StoredModel, kind: str, settings: Settings) -> Verification | None:
    """How the source's own runtime differs on the source; None where there is none."""
    if kind not in RUNTIME_OF:
        return None
    target, type_name = RUNTIME_OF[kind]
    found = export.load(target).verify(stored, settings.source, type_name)
    if found is not None and not found.kl < _SUSPICIOUS_KL:
        found.problems.append(f"the probabilities differ by {found.kl:.1e} nats: do not trust this import")
    return found


def print_result(result: dict[str, Any], found: Verification | None) -> None:
    """What was taken in, and how it differs."""
    print(f"{result['run']}: {result['arch']}, {result['num_parameters']:,} parameters")
    for note in result["notes"]:
        print(f"  {note}")
    if found is None:
        print("  not compared with another runtime", file=sys.stderr)
        return
    print(
        f"  beside {found.runtime}: {found.kl:.1e} nats of divergence, {found.num_same_greedy} of {found.num_greedy} "
        f"greedy tokens the same, {found.num_different_strings} of {found.num_strings} awkward strings differ"
    )
    for problem in found.problems:
        print(f"  warning: {problem}", file=sys.stderr)
