"""Multiple choice by likelihood: a run as a model of lm-evaluation-harness, beside the harness' own `hf` backend on it.

    python bench/multiple_choice.py RUN TEXT [--questions 1000] [--question-bytes 600] [--examples 0] [--repeats 2]

Questions are pieces of TEXT, each with four endings of which one is its own. Both sides are given the same requests in
the same process, in turn; `hf` with each batch size asked for, the best of which counts. Prints one JSON line: seconds,
how many times as fast, and the largest difference of any log-likelihood. Needs `pip install 'lm_eval[hf]'`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from inkling.harness import harness_model


def pairs_of(text: str, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Four a question: its text and an ending, the first one its own."""
    draw = random.Random(0)

    def piece(length: int) -> tuple[str, int]:
        start = text.index(" ", draw.randrange(len(text) - 4 * length - 100)) + 1
        return text[start : start + length].strip(), start + length

    def ending(start: int) -> str:
        start = text.index(" ", start) + 1
        return " " + text[start : start + draw.randint(20, 60)].strip()

    examples = "".join(f"{piece(arguments.question_bytes)[0]}\n\n" for _ in range(arguments.examples))
    found = []
    for _ in range(arguments.questions):
        question, end = piece(arguments.question_bytes)
        starts = [end, *(draw.randrange(len(text) - 200) for _ in range(3))]
        found += [(examples + question, ending(start)) for start in starts]
    return found


def timed(score: Callable[[], list[tuple[float, bool]]]) -> tuple[float, list[tuple[float, bool]]]:
    """Seconds and what came out."""
    started_s = time.perf_counter()
    found = score()
    return time.perf_counter() - started_s, found


def main() -> None:
    """Reads the options, times, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--question-bytes", type=int, default=600)
    parser.add_argument("--examples", type=int, default=0, help="shared by all questions, each as long as one")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    pairs = pairs_of(arguments.text.read_text(encoding="utf-8").replace("<|endoftext|>", ""), arguments)
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    ours = harness_model(arguments.run)
    theirs = {
        size: HFLM(pretrained=str(arguments.run), dtype="float32", device="cpu", batch_size=size, add_bos_token=True)
        for size in arguments.batch_sizes
    }
    sides: dict[str, Any] = {"ours": ours, **{f"hf, batches of {size}": one for size, one in theirs.items()}}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores = {}
    for side in sides.values():  # once without timing
        side.loglikelihood(requests[:64], disable_tqdm=True)
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            took_s, scores[name] = timed(lambda side=side: side.loglikelihood(requests, disable_tqdm=True))
            seconds[name].append(took_s)
    best = min(min(taken) for name, taken in seconds.items() if name != "ours")
    other = scores[next(name for name in scores if name != "ours")]
    differences = [abs(one[0] - two[0]) for one, two in zip(scores["ours"], other, strict=True)]
    accuracy = {
        name: sum(max(range(4), key=lambda n: found[start + n][0]) == 0 for start in range(0, len(found), 4))
        / arguments.questions
        for name, found in scores.items()
    }
    found: dict[str, Any] = {
        "seconds": seconds,
        "times_as_fast": best / min(seconds["ours"]),
        "largest_difference": max(differences),
        "same_greedy": sum(one[1] == two[1] for one, two in zip(scores["ours"], other, strict=True)),
        "accuracy": accuracy,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
