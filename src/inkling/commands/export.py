"""`inkling export`: a model in the files of another runtime, checked there."""

from __future__ import annotations

import errno
import json
import sys
import time
from pathlib import Path
from typing import Any

from inkling import checkpoint, export
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import ExportError, InklingError, did_you_mean
from inkling.export import Verification
from inkling.report.lineage import note_export


class Settings(CommandSettings):
    """Write a model in the files of another runtime, open it there, and say how it differs.

    Targets: gguf (llama.cpp, LM Studio, …), ollama (the same with a Modelfile), hf (transformers, vLLM, MLX), onnx.

    Where the runtime is installed, what was written is opened in it and compared: tokens of 200 awkward strings,
    probabilities, 64 greedy tokens, the chat template. A float file that differs is not left under its name.

    Example: inkling export runs/notes gguf --type q8_0
    Example: inkling export runs/notes hf -o notes-hf
    Example: inkling export runs/notes-sft hf --adapter
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    target: Positional[str]
    """gguf, hf, ollama or onnx."""
    out: Path | None = None
    """New file or folder. Default: the run's name, here."""
    type: str | None = None
    """Number format of the weights: f32, f16, bf16; for gguf and ollama also q8_0, q4_0, q4_1, q5_0, q5_1, q4_k_m,
    q5_k_m, q6_k. Default: f16 for gguf and ollama, f32 for the others."""
    adapter: bool = False
    """For hf: only the adapter of a run that was tuned with one, in PEFT's format. Without it, the merged model."""
    verify: bool = True
    """Open the result in the runtime that it is for, where that is installed, and compare."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Check, write, compare."""
    if settings.adapter and settings.target != "hf":
        raise ExportError("--adapter is for hf: adapters leave by themselves in the format of Hugging Face's PEFT only")
    target = export.load_adapter() if settings.adapter else export.load(settings.target)
    type_name = settings.type or target.TYPES[0]
    if type_name not in target.TYPES:
        raise ExportError(f"{settings.target} has no type {type_name!r}{did_you_mean(type_name, target.TYPES)}")
    stored = checkpoint.open_model(settings.run)
    if stored.quantization is not None:
        raise ExportError(
            f"{settings.run} is quantized in Inkling's own way: export the run that it was made from, with --type"
        )
    reasons = target.objections(stored.config, stored.tokenizer)
    if reasons:
        raise ExportError(f"{settings.run} cannot go to {settings.target}: {'; '.join(reasons)}")
    path = settings.out or target.default_path(stored, type_name)
    if path.exists():
        raise ExportError(f"{path} is there already; choose another with -o, or remove it")
    started_s = time.perf_counter()
    try:
        target.write(stored, path, type_name)
    except OSError as error:
        # numpy says how much it could not write, without a number for why
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "requested and" in str(error)
        reason = "the disk is full" if full else str(error)
        raise ExportError(f"could not write {path}: {reason}. Nothing is left under that name") from None
    written_s = time.perf_counter()
    try:
        found = target.verify(stored, path, type_name) if settings.verify else None
    except InklingError:
        raise
    except Exception as error:  # whatever another program raises when it cannot open the file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(f"{path} is written, but {settings.target}'s runtime cannot open it: {reason}") from error
    result = {
        "path": str(path),
        "type": type_name,
        "bytes": size_of(path),
        "seconds_to_write": written_s - started_s,
        "seconds_to_verify": time.perf_counter() - written_s,
        "verification": found.as_dict() if found is not None else None,
    }
    if found is not None and found.problems:
        rejected = path.with_name(f"{path.name}.rejected")
        path.rename(rejected)
        raise ExportError(f"{found.runtime} reads it otherwise: {'; '.join(found.problems)}. Kept as {rejected}")
    if (settings.run / checkpoint.RUN_FILE).is_file():
        note_export(settings.run, path, type_name)
    if settings.as_json:
        print(json.dumps(result))
    else:
        print_result(result, found, settings)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def print_result(result: dict[str, Any], found: Verification | None, settings: Settings) -> None:
    """What was written, and how it differs."""
    print(f"{result['path']}: {result['bytes'] / 1e6:,.1f} MB, {result['type']}")
    if found is None:
        install = f"its runtime is not installed. Run: pip install 'inkling-lm[{EXTRA[settings.target]}]'"
        why = install if settings.verify else "as asked"
        print(f"not verified: {why}", file=sys.stderr)
        return
    print(f"opened in {found.runtime}:")
    if found.num_different_strings is not None:
        print(f"  tokens         {found.num_different_strings} of {found.num_strings} awkward strings differ")
    print(f"  probabilities  {found.kl:.1e} nats of divergence, {found.top_agreement:.0%} same first choice")
    print(f"  greedy text    {found.num_same_greedy} of {found.num_greedy} tokens the same")
    if found.same_chat_template is not None:
        print(f"  chat template  {'the same' if found.same_chat_template else 'rendered otherwise'}")


EXTRA = {"gguf": "llamacpp", "ollama": "llamacpp", "hf": "transformers", "onnx": "onnx"}
"""What installs the runtime of each target."""
