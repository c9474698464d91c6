"""A model that was trained on short texts, stretched to longer ones: bits per byte by window, before and after.

    python bench/long_context.py DATA -o RUNS [--short 1024] [--long 4096] [--steps 300] [--more 60] [--seed 1]
        [--eval-tokens 131072] [--ways yarn …]

Trains a small llama at the short context, grows it by each way of stretching, and trains the stretched one a little
further, beside the short one trained as much. The first tokens of the longest validation document are scored in windows
side by side.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

from inkling.data.shards import Dataset
from inkling.tokenizer import Tokenizer

SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
WAYS = ("none", "linear", "ntk", "yarn")


def inkling(*arguments: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "inkling", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def bits(run: Path, text: Path, context: int) -> float:
    """Per byte of a text, at a window of so many tokens."""
    told = json.loads(inkling("eval", run, "--text", text, "--context", context, "--no-floors", "--json"))
    return round(float(told["bits_per_byte"]), 4)


def held_out(data: Path, num_tokens: int, out: Path) -> Path:
    """The first so many tokens of the longest validation document, as a text file."""
    split, tokenizer = Dataset.open(data).validation, Tokenizer.load(data)
    ends = [0, *map(int, split.document_ends)]
    start, end = max(itertools.pairwise(ends), key=lambda place: place[1] - place[0])
    out.write_text(tokenizer.decode(split.tokens(start, min(start + num_tokens, end - 1)).tolist()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--short", type=int, default=1024)
    parser.add_argument("--long", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--more", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eval-tokens", type=int, default=131_072)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    text = held_out(given.data, given.eval_tokens, given.out / "held_out.txt")
    common = ["--seed", given.seed, "--no-log.samples", "--machine.precision", "bf16", "--machine.compile", "no"]
    common += ["--log.eval-tokens", "65536", "--optimizer", "muon"]
    first = given.out / "short"
    if not first.exists():
        shape = [f"--model.{key}={value}" for key, value in SHAPE.items()]
        batch = ["--context", given.short, "--batch-size", 8, "--steps", given.steps]
        inkling("train", given.data, "--out", first, "--arch", "llama", "--size", "3m", *shape, *batch, *common)
    print(json.dumps({"run": "short", given.short: bits(first, text, given.short)}), flush=True)
    further = [
        *common,
        "--steps",
        given.more,
        "--loop.eval-every",
        given.more,
        "--schedule.peak",
        "0.3",
        "--schedule.warmup-steps",
        "5",
    ]
    kept = given.out / "short-more"
    if not kept.exists():
        batch = ["--context", given.short, "--batch-size", 8]
        inkling("train", given.data, "--out", kept, "--start-from", first, *batch, *further)
    print(json.dumps({"run": "short, trained on", given.short: bits(kept, text, given.short)}), flush=True)
    for way in given.ways:
        grown, tuned = given.out / way, given.out / f"{way}-more"
        if not grown.exists():
            inkling("grow", first, "--context", given.long, "--stretch", way, "-o", grown)
        found = {"run": way, given.short: bits(grown, text, given.short), given.long: bits(grown, text, given.long)}
        print(json.dumps(found), flush=True)
        if not tuned.exists():
            batch = ["--context", given.long, "--batch-size", 8 * given.short // given.long]
            inkling("train", given.data, "--out", tuned, "--start-from", grown, *batch, *further)
        found = {
            "run": f"{way}, trained on",
            given.short: bits(tuned, text, given.short),
            given.long: bits(tuned, text, given.long),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
