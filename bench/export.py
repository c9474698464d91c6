"""Every architecture to every target and type: how what arrives differs from what left; what a 124 M model takes.

    python bench/export.py [--run RUN …] [--llama-quantize PROGRAM]

Models with random weights (two layers, width 256), and each RUN besides. PROGRAM IN OUT NUMBER quantizes a GGUF file as
llama.cpp does (`llama_model_quantize`, NUMBER being its file type); with it, tensors are compared byte for byte.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkling import checkpoint, export, models
from inkling.checkpoint import StoredModel
from inkling.gguf.reader import GGUFFile
from inkling.gguf.types import FILE_TYPES
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
VARIANTS = {
    "llama": {"num_key_value_heads": 2},
    "llama-tied": {"tie_word_embeddings": True, "attention_bias": True},
    "qwen2": {},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "gpt2": {},
}


def random_model(folder: Path, values: dict[str, Any], tokenizer: Tokenizer, spread: float = 0.08) -> StoredModel:
    """A checkpoint folder with all weights random."""
    model = models.from_config(values)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            parameter.normal_(1.0 if gain else 0.0, spread, generator=generator)
    checkpoint.save_model(folder, model, tokenizer)
    return checkpoint.open_model(folder)


def same_bytes(ours: Path, theirs: Path) -> tuple[int, int]:
    """Tensors of two GGUF files, and how many of them have another type or other bytes."""
    first, second = GGUFFile(ours), GGUFFile(theirs)
    different = 0
    for name, tensor in first.tensors.items():
        other = second.tensors[name]
        bytes_of = [f._bytes[t.offset : t.offset + t.num_bytes] for f, t in ((first, tensor), (second, other))]
        different += tensor.type_name != other.type_name or not np.array_equal(*bytes_of)
    return len(first.tensors), different


def row(
    name: str, stored: StoredModel, target_name: str, kind: str, folder: Path, program: str | None
) -> dict[str, Any]:
    """One export, opened where it is for."""
    target = export.load(target_name)
    path = folder / f"{name}-{target_name}-{kind}"
    target.write(stored, path, kind)
    found = target.verify(stored, path, kind)
    assert found is not None
    result = {
        "model": name,
        "target": target_name,
        "type": kind,
        "runtime": found.runtime,
        "kl": found.kl,
        "same_first": found.top_agreement,
        "greedy": f"{found.num_same_greedy}/{found.num_greedy}",
        "strings": None
        if found.num_different_strings is None
        else f"{found.num_different_strings}/{found.num_strings}",
        "problems": found.problems,
    }
    if program is not None and target_name == "gguf" and kind != "f32":
        plain = folder / f"{name}-plain.gguf"
        if not plain.exists():
            target.write(stored, plain, "f32")
        theirs = folder / "theirs.gguf"
        subprocess.run([program, plain, theirs, str(FILE_TYPES[kind].number)], check=True, capture_output=True)
        result["tensors"], result["tensors_unlike_llama_cpp"] = same_bytes(path, theirs)
    print(json.dumps(result), file=sys.stderr)
    return result


def cost(target: str, kind: str, folder: Path) -> dict[str, Any]:
    """Time and memory of the whole command for a 124 M model."""
    out = folder / f"large-{target}-{kind}"
    command = [sys.executable, "-m", "inkling", "export", str(folder / "large"), target, "--type", kind, "-o", str(out)]
    started_s = time.perf_counter()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started_s
    size = json.loads(done.stdout)["bytes"]
    return {"target": target, "type": kind, "seconds": round(seconds, 1), "file_mb": round(size / 1e6)}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", default=[])
    parser.add_argument("--llama-quantize")
    arguments = parser.parse_args()
    words = [f"word{n % 97} {n * 7919 % 1000} übung " * 40 for n in range(60)]
    tokenizer = train_bpe(words, 1000)
    rows, costs = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {
            variant: random_model(
                folder / variant,
                {"model_type": variant.split("-")[0], "vocab_size": tokenizer.vocab_size + 5, **SHAPE, **values},
                tokenizer,
            )
            for variant, values in VARIANTS.items()
        }
        sources |= {Path(run).name: checkpoint.open_model(Path(run)) for run in arguments.run}
        for variant, stored in sources.items():
            for target in ("gguf", "hf", "onnx"):
                for kind in export.load(target).TYPES:
                    rows.append(row(variant, stored, target, kind, folder, arguments.llama_quantize))
        large = models.load("gpt2")
        shape = {**large.SIZES["124m"], "model_type": "gpt2"}
        random_model(folder / "large", shape, tokenizer, 0.04)
        for target, kind in (("gguf", "f32"), ("gguf", "f16"), ("gguf", "q4_k_m"), ("hf", "f32"), ("onnx", "f32")):
            # One child at a time: the largest so far is this one's when it is larger than all before.
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            costs.append(cost(target, kind, folder))
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            costs[-1]["peak_mb"] = round(peak / 1e3) if peak > before else f"at most {round(peak / 1e3)}"
            print(json.dumps(costs[-1]), file=sys.stderr)
    print(
        json.dumps({"rows": rows, "costs_124m": costs, "torch": torch.__version__, "python": platform.python_version()})
    )


if __name__ == "__main__":
    main()
