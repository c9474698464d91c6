"""What `inkling plan` tells beside what comes: wall time and loss of ten configurations.

    python bench/plan.py tinyshakespeare.txt books_20mb.txt

Trains ten configurations on the two texts and on builtin:python, one after another, each in a folder of its own, so
that no run corrects the next one's forecast. Prints one JSON line: each row, and how many are within 10 % and 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIGURATIONS: list[tuple[int, list[str]]] = [
    (0, ["--size", "0.8m", "--batch-size", "8", "--steps", "400"]),
    (0, ["--size", "3m", "--batch-size", "8", "--steps", "200"]),
    (0, ["--size", "0.8m", "--batch-size", "16", "--steps", "500", "--context", "128"]),
    (1, ["--size", "0.8m", "--batch-size", "8", "--steps", "500"]),
    (1, ["--size", "3m", "--batch-size", "8", "--steps", "300"]),
    (1, ["--size", "3m", "--batch-size", "16", "--steps", "150"]),
    (1, ["--size", "0.8m", "--batch-size", "8", "--steps", "400", "--arch", "llama"]),
    (2, ["--size", "0.8m", "--batch-size", "8", "--steps", "500"]),
    (2, ["--size", "3m", "--batch-size", "8", "--steps", "250"]),
    (2, ["--size", "0.8m", "--batch-size", "8", "--time", "40s"]),
]
"""(text, options); the third text is builtin:python."""


def run(command: list[str]) -> str:
    """What a command printed last."""
    done = subprocess.run([sys.executable, "-m", "inkling", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-1000:]}")
    return done.stdout.strip().splitlines()[-1]


def compare(data: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """One configuration: forecast and outcome."""
    result = json.loads(run(["train", str(data), "--out", str(out), "--no-resume", "--json", *options]))
    choices = json.loads((out / "run.json").read_text())["choices"]
    forecast, bits = choices["forecast"], result["validation"]["val_bits_per_byte"]
    return {
        "text": data.name,
        "options": " ".join(options),
        "seconds_planned": round(forecast["seconds"], 1),
        "seconds": result["train_seconds"],
        "time_error": round(result["train_seconds"] / forecast["seconds"] - 1, 3),
        "bits_planned": round(forecast["bits_per_byte"], 3),
        "bits": round(bits, 3),
        "loss_error": round(bits / forecast["bits_per_byte"] - 1, 3),
    }


def main() -> None:
    """All configurations in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs=2)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = []
        for number, text in enumerate([*options.texts, "builtin:python"]):
            data.append(Path(folder) / Path(text.replace(":", "-")).stem)
            run(["prep", text, "-o", str(data[number]), "--json"])
        for number, (text_number, more) in enumerate(CONFIGURATIONS):
            rows.append(compare(data[text_number], Path(folder) / f"runs-{number}" / "run", more))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    time_errors = [abs(row["time_error"]) for row in rows]
    loss_errors = [abs(row["loss_error"]) for row in rows]
    print(
        json.dumps(
            {
                "time_within_10_percent": sum(error <= 0.1 for error in time_errors),
                "loss_within_2_percent": sum(error <= 0.02 for error in loss_errors),
                "median_time_error": statistics.median(time_errors),
                "median_loss_error": statistics.median(loss_errors),
                "rows": rows,
                "torch": version("torch"),
                "python": platform.python_version(),
                "load": [round(load, 1) for load in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()
