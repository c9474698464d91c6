"""Writes the reference curve of a preset from its runs: `python scripts/reference_curve.py PRESET RUN...`

The curve is the bits per byte of validation text at each twentieth of a run: mean and standard deviation over the runs,
which differ in their seed. `inkling board` draws it beside runs with the preset.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).parents[1] / "src" / "inkling" / "train" / "reference_curves.json"
NUM_POINTS = 21


def curve_of(run: Path) -> np.ndarray:
    """Bits per byte at evenly spaced shares of the run, between its evaluations by straight lines."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    points = [(row["step"], row["val_bits_per_byte"]) for row in rows if row.get("val_bits_per_byte") is not None]
    steps, bits = np.array(points).T
    return np.interp(np.linspace(0, 1, NUM_POINTS), steps / steps[-1], bits)


def main() -> None:
    """Add or replace the curve of one preset."""
    preset, *runs = sys.argv[1:]
    curves = np.stack([curve_of(Path(run)) for run in runs])
    spread = curves.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(NUM_POINTS)
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    shares = np.linspace(0, 1, NUM_POINTS)
    known[preset] = [
        [round(float(value), 4) for value in row] for row in zip(shares, curves.mean(axis=0), spread, strict=True)
    ]
    FILE.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
