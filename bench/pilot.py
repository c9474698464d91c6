"""How well pilots tell the loss of a run, by the share of it that they take.

    python bench/pilot.py run SHAKESPEARE SHAKESPEARE_120KB BOOKS_5MB GSM8K -o rows.jsonl
    python bench/pilot.py judge rows.jsonl               prints one JSON line

`run` trains each configuration at a sixteenth, an eighth, a quarter, half and all of its length, as `inkling plan`
trains its pilots; a second call goes on. `judge` extrapolates from every pilot that is long enough and the one half as
long, and says how far off that is, by the distance.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from scaling_law import SHAPES, prepare, rms  # beside this file

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
_KNOWN = ("block_parameters", "text_tokens", "bytes_per_token", "ngram")
_SMALL = {"size": "0.8m", "model": SHAPES["0.2m"]}
CONFIGURATIONS: list[tuple[int, dict[str, Any]]] = [
    (0, {"size": "0.8m", "batch_size": 12, "steps": 800, "context": 64}),
    (1, {**_SMALL, "batch_size": 4, "steps": 600}),
    (2, {**_SMALL, "batch_size": 4, "steps": 600}),
    (3, {"size": "0.8m", "batch_size": 8, "steps": 200}),
    (3, {"size": "3m", "batch_size": 4, "steps": 200}),
    (3, {**_SMALL, "batch_size": 4, "steps": 2400, "context": 128}),
    (4, {"size": "0.8m", "batch_size": 4, "steps": 400, "seed": 2}),
]
"""(text, settings); the last text is builtin:python."""


def train(data: Path, values: dict[str, Any], share: float) -> dict[str, Any]:
    """One pilot; the row that is kept of it."""
    from inkling.commands._hooks import evaluator
    from inkling.data.loader import sequential_windows
    from inkling.data.shards import Dataset
    from inkling.tokenizer import Tokenizer
    from inkling.train import choose, pilot
    from inkling.train.settings import TrainSettings

    settings = TrainSettings.model_validate({"data": data, **values})
    dataset, tokenizer, device = Dataset.open(data), Tokenizer.load(data), torch.device("cpu")
    choices = choose.choose(settings, dataset, device, lambda line: None)
    choices |= {"precision": "bf16", "micro_batch": choices["batch_size"], "compile": False}
    every = -(-dataset.validation.num_tokens // pilot.EVAL_TOKENS)
    batches = list(sequential_windows(dataset.validation, settings.context, 1, dataset.eot_id))[::every]
    evaluate = evaluator(tokenizer)
    steps, of_steps = round(share * choices["steps"]), choices["steps"]
    bits = pilot.train_pilot(
        settings,
        choices,
        choose.training_windows(settings, dataset, choices["batch_size"]),
        device,
        steps=steps,
        of_steps=of_steps,
        score_fn=lambda model: evaluate(model, batches)["val_bits_per_byte"],
    )
    config = choices["model_config"]
    return {
        "corpus": data.name,
        "settings": values,
        "steps": steps,
        "of_steps": of_steps,
        "tokens": steps * choices["batch_size"] * settings.context,
        "block_parameters": choices["num_parameters"] - config["vocab_size"] * config["hidden_size"],
        "text_tokens": dataset.train.num_tokens,
        "bytes_per_token": dataset.train.num_bytes / dataset.train.num_tokens,
        "ngram": json.loads((data / "floor.json").read_text()),
        "bits_per_byte": bits,
    }


def run(options: argparse.Namespace) -> None:
    """All configurations on every corpus, what is there already left out."""
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    there = {(row["corpus"], json.dumps(row["settings"]), row["steps"]) for row in rows}
    corpora = [prepare(text, options.out.with_suffix("")) for text in [*options.texts, "builtin:python"]]
    for number, values in CONFIGURATIONS:
        name, data = corpora[number]
        for share in SHARES:
            if (name, json.dumps(values), round(share * values["steps"])) not in there:
                row = train(data, values, share)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr)


def judge(options: argparse.Namespace) -> None:
    """The error by how many times the run is as long as its longer pilot."""
    from inkling.train import pilot, scaling

    runs: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in map(json.loads, options.rows.read_text().splitlines()):
        runs[f"{row['corpus']} {json.dumps(row['settings'])}"][row["steps"]] = row
    errors: dict[int, list[float]] = defaultdict(list)
    for rows in runs.values():
        lengths = sorted(rows)
        for number, length in enumerate(lengths[1:], start=1):
            pilots = {rows[steps]["tokens"]: rows[steps]["bits_per_byte"] for steps in lengths[number - 1 : number + 1]}
            for longer in lengths[number + 1 :] if length >= pilot.MIN_STEPS else []:
                row = rows[longer]
                told = scaling.expected(tokens=row["tokens"], pilots=pilots, **{name: row[name] for name in _KNOWN})
                errors[round(longer / length)].append(math.log(told.bits_per_byte / row["bits_per_byte"]))
    by_distance = {
        times: {
            "extrapolations": len(some),
            "error": round(rms(some), 4),
            "median": round(statistics.median(map(abs, some)), 4),
            "within_2_percent": sum(abs(error) <= 0.02 for error in some),
        }
        for times, some in sorted(errors.items())
    }
    print(json.dumps({"runs": len(runs), "by_times_the_longer_pilot": by_distance}))


def main() -> None:
    """`run` or `judge`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.add_argument("texts", nargs=4)
    running.add_argument("-o", "--out", type=Path, required=True)
    running.set_defaults(work=run)
    judging = verbs.add_parser("judge")
    judging.add_argument("rows", type=Path)
    judging.set_defaults(work=judge)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
