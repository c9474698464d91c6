"""CPU seconds to nanoGPT's published CPU result on characters of Shakespeare (1.88 nats), beside nanoGPT's own run.

    python bench/nanogpt_shakespeare.py NANOGPT tinyshakespeare.txt [--seeds 1 2 3] [--threads 1 2]

NANOGPT is a checkout of karpathy/nanoGPT with data/shakespeare_char prepared. Its README's command for a CPU is run to
its end, at each number of threads; its best CPU time counts. Inkling trains a model of the same shape (4 layers, width
128, 4 heads) to the end of a short schedule and scores the whole validation split; the process as a whole is counted,
with imports and evaluations. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

NANOGPT = [
    "train.py",
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=200",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
]
OURS = [
    "--size",
    "0.8m",
    "--context",
    "64",
    "--batch-size",
    "12",
    "--steps",
    "300",
    "--optimizer",
    "muon",
    "--muon.lr",
    "0.01",
    "--muon.embedding_lr",
    "0.02",
    "--schedule.warmup_steps",
    "20",
    "--model.dropout",
    "0",
    "--machine.precision",
    "bf16",
    "--machine.threads",
    "1",
    "--machine.micro_batch",
    "12",
    "--machine.compile",
    "no",
    "--loop.eval_every",
    "1000",
    "--no-log.samples",
    "--no-resume",
    "--json",
]


def cpu_seconds_of(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """User and system time of a command, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def run_nanogpt(folder: Path, threads: int) -> dict[str, Any]:
    """nanoGPT to its end: CPU seconds and its own estimate of the validation loss."""
    with tempfile.TemporaryDirectory() as out:
        seconds, output = cpu_seconds_of(
            [sys.executable, *NANOGPT, f"--out_dir={out}"], folder, {"OMP_NUM_THREADS": str(threads)}
        )
    losses = re.findall(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", output)
    return {"threads": threads, "cpu_s": round(seconds, 1), "val_nats_per_char": float(losses[-1])}


def run_ours(data: Path, seed: int) -> dict[str, Any]:
    """Inkling: CPU seconds of the process, and the loss over the whole validation split."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-m",
            "inkling",
            "train",
            str(data),
            "--out",
            f"{out}/run",
            "--seed",
            str(seed),
            *OURS,
        ]
        seconds, output = cpu_seconds_of(command, Path(out), {})
    result = json.loads(output.splitlines()[-1])
    loss, parameters = result["validation"]["val_loss"], result["params"]
    return {"seed": seed, "cpu_s": round(seconds, 1), "val_nats_per_char": round(loss, 4), "params": parameters}


def main() -> None:
    """Run both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare = [sys.executable, "-m", "inkling", "prep", str(options.text.resolve()), "-o", str(data)]
        prepare += ["--level", "char", "--split", "tail", "--clean", "none"]
        subprocess.run(prepare, check=True, capture_output=True)
        theirs = [run_nanogpt(options.nanogpt.resolve(), threads) for threads in options.threads]
        ours = [run_ours(data, seed) for seed in options.seeds]
    best = min(run["cpu_s"] for run in theirs)
    ratios = [best / run["cpu_s"] for run in ours]
    print(
        json.dumps(
            {
                "times_less_cpu": [round(v, 1) for v in (statistics.median(ratios), min(ratios), max(ratios))],
                "nanogpt": theirs,
                "ours": ours,
                "torch": version("torch"),
                "python": platform.python_version(),
                "load": [round(load, 1) for load in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
