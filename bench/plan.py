"""What `inkling plan` tells beside what comes: wall time and loss of ten configurations.

    python bench/plan.py tinyshakespeare.txt books_20mb.txt [--pilot 0.15] [--only 0,1,2] [--work FOLDER]

Plans and trains ten configurations on the two texts and on builtin:python, one after another, each in a folder of its
own, so that no run corrects the next one's forecast. Prints one JSON line: each row, and how many are within 10 % and
2 %.
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
import time
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
PYTHON = "builtin:python"


def run(command: list[str]) -> str:
    """What a command printed last."""
    done = subprocess.run([sys.executable, "-m", "inkling", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-1000:]}")
    return done.stdout.strip().splitlines()[-1]


def compare(data: Path, out: Path, options: list[str], pilot: list[str]) -> dict[str, Any]:
    """One configuration: forecast and outcome."""
    began_s = time.monotonic()
    plan = json.loads(run(["plan", str(data), "--out", str(out), "--json", *options, *pilot]))
    plan_s = time.monotonic() - began_s
    result = json.loads(run(["train", str(data), "--out", str(out), "--no-resume", "--json", *options]))
    bits = result["validation"]["val_bits_per_byte"]
    choices = json.loads((out / "run.json").read_text())["choices"]
    return {
        "text": data.name,
        "options": " ".join(options),
        "plan_seconds": round(plan_s, 1),
        "pilot_share": round(sum(map(int, plan["pilots"])) / plan["steps"], 3),
        "seconds_planned": round(plan["seconds"], 1),
        "seconds": result["train_seconds"],
        "time_error": round(result["train_seconds"] / plan["seconds"] - 1, 3),
        "bits_planned": round(plan["bits_per_byte"], 3),
        "error_planned": round(plan["error"], 3),
        "bits": round(bits, 3),
        "loss_error": round(bits / plan["bits_per_byte"] - 1, 3),
        "loss_error_by_law": round(bits / plan["by_law"] - 1, 3),
        "pilots": plan["pilots"],
        "computed_as_planned": all(choices[name] == plan[name] for name in ("precision", "num_threads", "micro_batch")),
    }


def main() -> None:
    """All configurations in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs=2)
    parser.add_argument("--pilot", type=float, help="as of inkling plan")
    parser.add_argument("--only", default=",".join(map(str, range(len(CONFIGURATIONS)))), help="numbers, with commas")
    parser.add_argument("--work", type=Path, help="folder of data that is prepared once; default: a temporary one")
    options = parser.parse_args()
    pilot = [] if options.pilot is None else ["--pilot", str(options.pilot)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = [Path(options.work or folder) / Path(text.replace(":", "-")).stem for text in [*options.texts, PYTHON]]
        for text, prepared in zip([*options.texts, PYTHON], data, strict=True):
            if not prepared.exists():
                run(["prep", text, "-o", str(prepared), "--json"])
        for number in map(int, options.only.split(",")):
            text_number, more = CONFIGURATIONS[number]
            rows.append(compare(data[text_number], Path(folder) / f"runs-{number}" / "run", more, pilot))
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
