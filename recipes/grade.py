"""How good the runs of a recipe are: one JSON line, and the scores of their evaluations as a table.

    python grade.py PART.jsonl --rewards unit_tests -n 24 [--form plain] [--seed S] RUN…

The prompts are answered without chance. For each run the share that is right, with its 95 % interval; `floor` is what
the best constant answer gets, of those most often demonstrated; `…_warned` counts warnings of the run. `curve.csv` has
a line for each evaluation.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from inkling import rewards

_SCORES = ("val_loss", "val_reward", "val_accuracy")
_CONSTANTS = 8


def read(path: Path) -> list[dict[str, object]]:
    """The rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def floor(test: Path, demonstrations: Path, name: str) -> float:
    """The mean reward of the best constant answer."""
    rows, reward = read(test), rewards.load(name)
    answers = Counter(_answer_of(row) for row in read(demonstrations))
    prompts = [str(row["prompt"]) for row in rows]
    means = [sum(reward(prompts, [one] * len(rows), rows)) / len(rows) for one, _ in answers.most_common(_CONSTANTS)]
    return max(means)


def _answer_of(row: dict[str, object]) -> str:
    messages = row.get("messages")
    return str(messages[-1]["content"] if isinstance(messages, list) else row["completion"])


def graded(run: str, test: Path, name: str, num_tokens: int, form: str, temperature: str = "0") -> dict[str, Any]:
    """What `inkling sample` says of a run."""
    asked = ["inkling", "sample", f"runs/{run}", str(test), "--rewards", name, "--temperature", temperature]
    told = subprocess.check_output([*asked, "--form", form, "-n", str(num_tokens), "--json"], text=True)
    found: dict[str, Any] = json.loads(told)
    return found


def _shares(name: str, told: dict[str, Any]) -> dict[str, object]:
    return {name: round(told["reward"], 4), f"{name}_interval": [round(end, 4) for end in told["interval"]]}


def curve(seed: int, runs: list[str]) -> None:
    """Write the scores of all evaluations of some runs."""
    with Path("curve.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["seed", "run", "step", *_SCORES])
        for run in runs:
            for row in read(Path("runs") / run / "metrics.jsonl"):
                if any(name in row for name in _SCORES):
                    scores = [f"{row[name]:.4f}" if name in row else "" for name in _SCORES]
                    table.writerow([seed, run, row["step"], *scores])


def main() -> None:
    """Grade, write, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rewards", required=True)
    parser.add_argument("--style", help="a reward that is also asked for, at temperature 1")
    parser.add_argument("-n", "--max-tokens", type=int, required=True)
    parser.add_argument("--form", choices=("chat", "plain"), default="plain")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found: dict[str, object] = {"seed": given.seed, "part": given.test.stem}
    found["floor"] = round(floor(given.test, Path("demonstrations.jsonl"), given.rewards), 4)
    for run in given.runs:
        told = graded(run, given.test, given.rewards, given.max_tokens, given.form)
        found |= _shares(run, told)
        warnings = json.loads((Path("runs") / run / "run.json").read_text(encoding="utf-8"))["results"].get("warnings")
        if warnings:
            found[f"{run}_warned"] = len(warnings)
        if given.style:
            told = graded(run, given.test, given.style, given.max_tokens, given.form, "1")
            found |= _shares(f"{run}_style", told)
    curve(given.seed, given.runs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
