"""Mixtures of experts beside dense models of the same active width.

    python bench/mixtures.py speed                          time of a training step, alternating, without the optimizer
    python bench/mixtures.py loss DATA -o RUNS [--seeds 3]  runs on the same tokens, and their validation losses

A mixture has eight experts, two for each token, each half as wide as the dense feed-forward layer: a token meets the
same number of weights, and a router.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from inkling import machine, models
from inkling.train.loop import MicroBatch
from inkling.train.pretrain import next_token_loss

SPEEDS: list[dict[str, Any]] = [
    {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4},
    {"hidden_size": 512, "intermediate_size": 1344, "num_hidden_layers": 6, "num_attention_heads": 8},
]
VOCABULARY, CONTEXT, WARM = 4096, 256, 12
PAIRS = {"llama": "mixtral", "qwen3": "qwen3_moe"}


def model_of(arch: str, shape: dict[str, Any]) -> models.LanguageModel:
    """A model with random weights, none of them zero."""
    width = shape["intermediate_size"]
    changes = {"mixtral": {"intermediate_size": width // 2}, "qwen3_moe": {"moe_intermediate_size": width // 2}}
    more = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "norm_topk_prob": True}
    model = models.from_config({"model_type": arch, **shape, **more, **changes.get(arch, {})})
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "w2.weight")):
                parameter.normal_(0, 0.05, generator=generator)
    return model.train()


def speed(repeats: int, rows: int) -> None:
    """Prints a line of JSON for each pair and shape."""
    machine.keep_freed_memory()
    torch.set_num_threads(machine.usable_cores())
    generator = torch.Generator().manual_seed(1)
    for shape in SPEEDS:
        for pair in PAIRS.items():
            built = {name: model_of(name, shape) for name in pair}
            times: dict[str, list[float]] = {name: [] for name in pair}
            for repeat in range(repeats + WARM):
                ids = torch.randint(0, VOCABULARY, (rows, CONTEXT + 1), generator=generator)
                segments = (torch.arange(CONTEXT) // 100).expand(rows, CONTEXT)
                for name, model in built.items():
                    started = time.perf_counter()
                    with torch.autocast("cpu", torch.bfloat16):
                        loss = next_token_loss(model, MicroBatch(ids[:, :-1], ids[:, 1:], segments))
                    loss.backward()
                    if repeat >= WARM:
                        times[name].append(time.perf_counter() - started)
                    model.zero_grad()
            dense, mixture = pair
            ratios = sorted(a / b for a, b in zip(times[mixture], times[dense], strict=True))
            line = {
                "pair": f"{mixture} / {dense}",
                "width": shape["hidden_size"],
                "tokens": rows * CONTEXT,
                "ratio": round(statistics.median(ratios), 3),
                "quartiles": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
            }
            print(json.dumps(line), flush=True)


def loss(data: Path, out: Path, given: argparse.Namespace) -> None:
    """Trains each pair on the same tokens; prints a line of JSON for each run. Started again, it goes on."""
    shape = {**SPEEDS[0], "hidden_size": given.width, "intermediate_size": 3 * given.width}
    for seed in range(1, given.seeds + 1):
        for arch in ("llama", "mixtral"):
            run = out / f"{arch}-{seed}"
            width = shape["intermediate_size"] // (2 if arch == "mixtral" else 1)
            command = [sys.executable, "-m", "inkling", "train", str(data), "--out", str(run), "--arch", arch]
            command += ["--size", "3m", "--context", str(CONTEXT), "--steps", str(given.steps)]
            command += ["--batch-size", str(given.rows), "--machine.micro-batch", str(given.rows)]
            command += ["--seed", str(seed), "--optimizer", "muon", "--no-log.samples", "--machine.precision", "bf16"]
            command += [
                "--machine.compile",
                "no",
                "--machine.micro-batch",
                "32",
                "--machine.threads",
                str(given.threads),
            ]
            command += ["--log.eval-tokens", "40000", "--loop.eval-every", "100", "--checkpoint.every", "50"]
            command += [f"--model.{key}={value}" for key, value in {**shape, "intermediate_size": width}.items()]
            if run.exists() and json.loads((run / "run.json").read_text())["status"] != "finished":
                command = [sys.executable, "-m", "inkling", "train", "--resume", "--out", str(run)]
            if not run.exists() or "--resume" in command:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            record = json.loads((run / "run.json").read_text())
            found = record["results"]["validation"]
            parameters = record["num_parameters"]
            tokens = record["choices"]["steps"] * record["choices"]["batch_size"] * CONTEXT
            line = {"arch": arch, "seed": seed, "parameters": parameters, "tokens": tokens, **found}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    timing = commands.add_parser("speed")
    timing.add_argument("--repeats", type=int, default=9)
    timing.add_argument("--rows", type=int, default=32)
    learning = commands.add_parser("loss")
    learning.add_argument("data", type=Path)
    learning.add_argument("-o", "--out", type=Path, required=True)
    learning.add_argument("--seeds", type=int, default=3)
    learning.add_argument("--steps", type=int, default=400)
    learning.add_argument("--rows", type=int, default=32)
    learning.add_argument("--width", type=int, default=256)
    learning.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.repeats, given.rows)
    else:
        loss(given.data, given.out, given)
