"""Runs a grid of small trainings and fits the law by which `inkling plan` expects a loss.

    python bench/scaling_law.py run TEXT... -o rows.jsonl [--processes 2]     trains; a second call goes on
    python bench/scaling_law.py fit rows.jsonl                               fits; prints one JSON line

TEXT is a file or folder, each a corpus of its own; builtin:python is always one more. Rows hold what is known before a
run (parameters, tokens, text, the byte n-gram's bits per byte) and what came out. The fit leaves one corpus out at a
time and says how far off the law is on it: that is the error to expect on a text that it has never seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, int]] = {
    "0.2m": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 176},
    "0.8m": {},
    "3m": {},
}
GRID = [("0.8m", 600), ("0.2m", 2000), ("3m", 600), ("0.8m", 2000), ("3m", 1500), ("0.2m", 600)]
"""(shape, thousands of tokens)"""
CONTEXT = 256


def train(job: tuple[str, Path, str, int]) -> dict[str, Any]:
    """One run; the row that is kept of it."""
    corpus, data, shape, thousands = job
    batch = 4 if thousands < 1000 else 8
    steps = round(thousands * 1000 / (batch * CONTEXT))
    out = data.parent / "runs" / f"{corpus}-{shape}-{thousands}k"
    command = [sys.executable, "-m", "inkling", "train", str(data), "--out", str(out), "--json", "--no-resume"]
    command += ["--size", shape if not SHAPES[shape] else "0.8m", "--context", str(CONTEXT), "--steps", str(steps)]
    command += ["--batch-size", str(batch), "--machine.threads", "1", "--no-log.samples", "--machine.compile", "no"]
    for key, value in SHAPES[shape].items():
        command += [f"--model.{key}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-1000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    record = json.loads((out / "run.json").read_text())
    manifest = json.loads((data / "manifest.json").read_text())
    config = record["choices"]["model_config"]
    train_split = manifest["splits"]["train"]
    return {
        "corpus": corpus,
        "shape": shape,
        "block_parameters": result["params"] - config["vocab_size"] * config["hidden_size"],
        "params": result["params"],
        "tokens": steps * batch * CONTEXT,
        "text_tokens": train_split["num_tokens"],
        "bytes_per_token": train_split["num_bytes"] / train_split["num_tokens"],
        "ngram": json.loads((data / "floor.json").read_text()),
        "bits_per_byte": result["validation"]["val_bits_per_byte"],
    }


def prepare(text: str, folder: Path) -> tuple[str, Path]:
    """A data folder of a corpus, with the floor of its validation text beside it."""
    from inkling.commands._hooks import difficulty_of
    from inkling.data.shards import Dataset
    from inkling.tokenizer import Tokenizer

    name = Path(text.replace(":", "-")).stem
    data = folder / name
    if not (data / "floor.json").exists():
        command = [sys.executable, "-m", "inkling", "prep", text, "-o", str(data)]
        subprocess.run(command, check=True, capture_output=True)
        floor = difficulty_of(Dataset.open(data), Tokenizer.load(data))
        (data / "floor.json").write_text(json.dumps(floor))
    return name, data


def run(options: argparse.Namespace) -> None:
    """The grid on every corpus, what is there already left out."""
    folder = options.out.with_suffix("")
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    there = {(row["corpus"], row["shape"], round(row["tokens"], -5)) for row in rows}
    corpora = [prepare(text, folder) for text in [*options.texts, "builtin:python"]]
    jobs = [(name, data, shape, k) for shape, k in GRID for name, data in corpora]
    jobs = [job for job in jobs if (job[0], job[2], round(job[3] * 1000, -5)) not in there]
    with ThreadPoolExecutor(options.processes) as pool, options.out.open("a") as file:
        for row in pool.map(train, jobs):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(json.dumps(row), file=sys.stderr)


def fit(options: argparse.Namespace) -> None:
    """The law's numbers from all rows, and its error on each corpus from the rows of the others."""
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    corpora = sorted({row["corpus"] for row in rows})
    errors, calibrated = [], []
    for corpus in corpora:
        law = fitted([row for row in rows if row["corpus"] != corpus])
        own = [math.log(predicted(law, row) / row["bits_per_byte"]) for row in rows if row["corpus"] == corpus]
        errors += own
        calibrated += [error - own[0] for error in own[1:]]
    law = fitted(rows)
    within = [math.log(predicted(law, row) / row["bits_per_byte"]) for row in rows]
    print(
        json.dumps(
            {
                "law": {name: round(value, 4) for name, value in vars(law).items()},
                "rows": len(rows),
                "corpora": corpora,
                "relative_error": {
                    "on_the_rows_fitted": round(rms(within), 4),
                    "on_a_corpus_left_out": round(rms(errors), 4),
                    "on_a_corpus_left_out_after_one_run_on_it": round(rms(calibrated), 4),
                },
            }
        )
    )


def predicted(law: Any, row: dict[str, Any]) -> float:
    """The law's bits per byte for a row."""
    from inkling.train.scaling import expected

    known = ("block_parameters", "tokens", "text_tokens", "bytes_per_token", "ngram")
    return expected(**{name: row[name] for name in known}, law=law).bits_per_byte


def fitted(rows: list[dict[str, Any]]) -> Any:
    """Least squares of logarithms over six numbers; the worth of repetition is that of Muennighoff et al."""
    from scipy.optimize import least_squares  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from inkling.train.scaling import LAW, Law

    def law_of(values: np.ndarray) -> Law:
        return Law(*np.exp(values).tolist(), half_worth=LAW.half_worth, error=0.0, error_after_a_run=0.0)

    def residuals(values: np.ndarray) -> list[float]:
        law = law_of(values)
        return [math.log(predicted(law, row) / row["bits_per_byte"]) for row in rows]

    start = np.log([LAW.level, LAW.size, LAW.size_power, LAW.data, LAW.data_power, LAW.growth])
    return law_of(least_squares(residuals, start, bounds=(start - 2, start + 2)).x)


def rms(values: list[float]) -> float:
    """Root mean square."""
    return math.sqrt(sum(value * value for value in values) / len(values))


def main() -> None:
    """`run` or `fit`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.add_argument("texts", nargs="+")
    running.add_argument("-o", "--out", type=Path, required=True)
    running.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2)))
    running.set_defaults(work=run)
    fitting = verbs.add_parser("fit")
    fitting.add_argument("rows", type=Path)
    fitting.set_defaults(work=fit)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
