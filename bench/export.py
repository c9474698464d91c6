"""Every architecture to every target and type: how what arrives differs from what left; what a 124 M model takes.

    python bench/export.py [--run RUN …] [--models NAME …] [--llama-quantize PROGRAM]

Models with random weights (two layers, width 256), one that sees, two tuned with an adapter, and each RUN besides.
PROGRAM IN OUT NUMBER quantizes a GGUF file as llama.cpp does (`llama_model_quantize`, NUMBER being its file type); with
it, tensors are compared byte for byte. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkling import checkpoint, export, models, peft
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
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "llama-tied": {"tie_word_embeddings": True, "attention_bias": True},
    "mistral": {"num_key_value_heads": 2},
    "mistral-window": {"num_key_value_heads": 2, "sliding_window": 40},
    "qwen2": {},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "gpt2": {},
    "gemma2": {"num_key_value_heads": 2, "sliding_window": 40},
    "mixtral": {"num_key_value_heads": 2, "num_experts": 4},
    "qwen3_moe": {"norm_topk_prob": True, "num_experts": 8, "moe_intermediate_size": 256},
    "deepseek_v2": {"num_experts": 4, "q_lora_rank": 64, "first_k_dense_replace": 1, "moe_intermediate_size": 256},
    "deepseek_v3": {"num_experts": 8, "q_lora_rank": 64, "first_k_dense_replace": 1, "moe_intermediate_size": 256},
}
COSTS = (("gguf", "f32"), ("gguf", "f16"), ("gguf", "q4_k_m"), ("hf", "f32"), ("hf", "f16"), ("onnx", "f32"))
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}


def random_model(folder: Path, values: dict[str, Any], tokenizer: Tokenizer, spread: float = 0.08) -> StoredModel:
    """A checkpoint folder with all weights random."""
    model = models.from_config(values)
    randomise(model, spread)
    checkpoint.save_model(folder, model, tokenizer)
    return checkpoint.open_model(folder)


def randomise(model: models.LanguageModel, spread: float) -> None:
    """Draw all weights; gains around 1, or around 0 where a gain is 1 + weight."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            centre = 1.0 if gain and model.config.model_type != "gemma2" else 0.0
            parameter.normal_(centre, spread, generator=generator)


def random_model_that_sees(folder: Path, base: StoredModel) -> StoredModel:
    """The same with eyes."""
    model, tokenizer = checkpoint.load_model(base.folder)
    seeing = models.with_eyes(model, VISION, base.config.vocab_size - 1)
    randomise(seeing, 0.08)
    checkpoint.save_model(folder, seeing, tokenizer)
    return checkpoint.open_model(folder)


def tuned_model(folder: Path, base: StoredModel) -> StoredModel:
    """A run with an adapter of random numbers, merged and by itself."""
    model, tokenizer = checkpoint.load_model(base.folder)
    settings = peft.AdapterSettings(rank=8)
    peft.attach(model, settings)
    weights = peft.adapter_weights(model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in weights.values():
            tensor.normal_(0, 0.05, generator=generator)
    checkpoint.save_model(folder, models.without_memory(model.config), tokenizer, peft.merged_weights(model))
    held = folder / checkpoint.ADAPTER_FOLDER
    turned = base.config.model_type == "gpt2"
    peft.write_adapter(held, weights, settings, base=str(base.folder), base_sha256="", turned=turned)
    tokenizer.save(held)
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
    target = export.load_adapter() if target_name == "adapter" else export.load(target_name)
    reasons = target.objections(stored.config, stored.tokenizer)
    if reasons:
        return {"model": name, "target": target_name, "type": kind, "objections": reasons}
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
    script = f"""
import json, resource, subprocess
done = subprocess.run({[*command, "--json"]!r}, capture_output=True, text=True, check=True)
print(json.dumps([json.loads(done.stdout)["bytes"], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""  # one process between, so that the peak is that of this command and what it starts
    started_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started_s
    size, peak_kib = json.loads(done.stdout)
    shutil.rmtree(out) if out.is_dir() else out.unlink()
    return {
        "target": target,
        "type": kind,
        "seconds": round(seconds, 1),
        "file_mb": round(size / 1e6),
        "peak_mb": round(peak_kib * 1024 / 1e6),
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="*", default=[])
    parser.add_argument("--llama-quantize")
    parser.add_argument("--models", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="default: all")
    parser.add_argument("--only", choices=("rows", "costs"), help="the table, or what a 124 M model takes")
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
            if variant in arguments.models
        }
        if "qwen3" in sources:
            sources["llava"] = random_model_that_sees(folder / "llava", sources["qwen3"])
        sources |= {Path(run).name: checkpoint.open_model(Path(run)) for run in arguments.run}
        for variant, stored in sources.items() if arguments.only != "costs" else ():
            for target in ("gguf", "hf", "onnx"):
                for kind in export.load(target).TYPES:
                    rows.append(row(variant, stored, target, kind, folder, arguments.llama_quantize))
        tunable = [variant for variant in ("qwen3", "gpt2") if variant in sources]
        for variant in tunable if arguments.only != "costs" else ():
            tuned = tuned_model(folder / f"{variant}-tuned", sources[variant])
            rows += [row(f"{variant}-tuned", tuned, target, "f32", folder, None) for target in ("adapter", "hf")]
        large = models.load("gpt2")
        shape = {**large.SIZES["124m"], "model_type": "gpt2"}
        random_model(folder / "large", shape, tokenizer, 0.04)
        for target, kind in COSTS if arguments.only != "rows" else ():
            costs.append(cost(target, kind, folder))
            print(json.dumps(costs[-1]), file=sys.stderr)
    print(
        json.dumps({"rows": rows, "costs_124m": costs, "torch": torch.__version__, "python": platform.python_version()})
    )


if __name__ == "__main__":
    main()
