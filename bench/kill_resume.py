"""Kill one short run with SIGKILL at random moments, resume it each time, compare it with an uninterrupted one.

    python bench/kill_resume.py DATA_FOLDER [--kills 20] [--seed 1]

Prints one JSON line: kills, the steps they fell on, and whether the final weights and all logged losses are equal.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

TRAIN = [sys.executable, "-m", "inkling", "train"]
STEPS = 200
SETTINGS = [
    *("--size", "0.8m", "--context", "64", "--batch-size", "12", "--steps", str(STEPS), "--loop.log-every", "1"),
    *("--checkpoint.every", "5", "--loop.eval-every", "40", "--log.eval-tokens", "4096", "--no-log.samples"),
    *("--model.dropout", "0.1", "--machine.precision", "fp32", "--machine.compile", "no", "--machine.threads", "1"),
    *("--machine.micro-batch", "6", "--average.decay", "0.99"),
]


def losses(run: Path) -> dict[int, float]:
    """Logged training losses by step."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def last_step(run: Path) -> int:
    """The newest checkpoint's step."""
    steps = [int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("step-*")]
    return max(steps, default=-1)


def run_and_kill(arguments: list[str], run: Path, delay_s: float) -> str | None:
    """Start training, kill it `delay_s` after its run directory was touched; its error if it ended by itself."""
    process = subprocess.Popen([*TRAIN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    before = (run / "training.log").stat().st_size if (run / "training.log").exists() else 0
    while process.poll() is None:
        if (run / "training.log").exists() and (run / "training.log").stat().st_size > before:
            break
        time.sleep(0.005)
    time.sleep(delay_s)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None
    assert process.stderr is not None
    return process.stderr.read()[-300:] if process.returncode else "finished before it could be killed"


def main() -> None:
    """Run both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        started = time.monotonic()
        subprocess.run([*TRAIN, options.data, "--out", str(whole), *SETTINGS], check=True, capture_output=True)
        whole_s = time.monotonic() - started
        arguments = [options.data, "--out", str(killed), *SETTINGS]
        fell_on: list[int] = []
        problems: list[str] = []
        for _ in range(options.kills):
            problem = run_and_kill(arguments, killed, chosen.uniform(0, 1.2))
            problems += [problem] if problem else []
            fell_on.append(last_step(killed))
            arguments = ["--out", str(killed), "--resume"]
        subprocess.run([*TRAIN, *arguments], check=True, capture_output=True)
        last = f"checkpoints/step-{STEPS:06d}/model.safetensors"
        ours, theirs = load_file(killed / last), load_file(whole / last)
        result = {
            "kills": options.kills,
            "checkpoint_before_each_kill": fell_on,
            "problems": problems,
            "weights_equal": all(torch.equal(ours[name], theirs[name]) for name in theirs),
            "losses_equal": losses(killed) == losses(whole),
            "uninterrupted_seconds": round(whole_s, 1),
            "torch": torch.__version__,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
