"""A model that was trained on short texts, stretched to longer ones: bits per byte by window, before and after.

    python bench/long_context.py DATA -o RUNS [--short 1024] [--long 4096] [--steps 300] [--more 60] [--seed 1]

Trains a small llama at the short context, grows it by each way of stretching, and trains the stretched one a little
further, beside the short one trained as much. The whole validation text is scored in windows side by side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
WAYS = ("none", "linear", "ntk", "yarn")


def inkling(*arguments: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "inkling", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def bits(run: Path, context: int) -> float:
    """Per byte of the validation text, at a window of so many tokens."""
    told = json.loads(inkling("eval", run, "--context", context, "--no-floors", "--json"))
    return round(float(told["bits_per_byte"]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--short", type=int, default=1024)
    parser.add_argument("--long", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--more", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    common = ["--seed", given.seed, "--no-log.samples", "--machine.precision", "bf16", "--machine.compile", "no"]
    common += ["--log.eval-tokens", "65536", "--optimizer", "muon"]
    first = given.out / "short"
    if not first.exists():
        shape = [f"--model.{key}={value}" for key, value in SHAPE.items()]
        batch = ["--context", given.short, "--batch-size", 8, "--steps", given.steps]
        inkling("train", given.data, "--out", first, "--arch", "llama", "--size", "3m", *shape, *batch, *common)
    print(json.dumps({"run": "short", given.short: bits(first, given.short)}), flush=True)
    further = [*common, "--steps", given.more, "--schedule.peak", "0.3", "--schedule.warmup-steps", "5"]
    kept = given.out / "short-more"
    if not kept.exists():
        batch = ["--context", given.short, "--batch-size", 8]
        inkling("train", given.data, "--out", kept, "--start-from", first, *batch, *further)
    print(json.dumps({"run": "short, trained on", given.short: bits(kept, given.short)}), flush=True)
    for way in WAYS:
        grown, tuned = given.out / way, given.out / f"{way}-more"
        if not grown.exists():
            inkling("grow", first, "--context", given.long, "--stretch", way, "-o", grown)
        found = {"run": way, given.short: bits(grown, given.short), given.long: bits(grown, given.long)}
        print(json.dumps(found), flush=True)
        if not tuned.exists():
            batch = ["--context", given.long, "--batch-size", 8 * given.short // given.long]
            inkling("train", given.data, "--out", tuned, "--start-from", grown, *batch, *further)
        found = {
            "run": f"{way}, trained on",
            given.short: bits(tuned, given.short),
            given.long: bits(tuned, given.long),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
