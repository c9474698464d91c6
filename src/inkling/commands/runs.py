"""`inkling runs`: what is in a folder of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inkling.config import CommandSettings, Positional
from inkling.errors import CheckpointError


class Settings(CommandSettings):
    """List the runs in a folder with their status and best score.

    Example: inkling runs
    """

    folder: Positional[Path] = Path("runs")
    """Folder that holds run directories."""
    as_json: bool = False
    """Print one JSON object a line."""


def run(settings: Settings) -> None:
    """Print a line for each run, the most recent last."""
    rows = list_runs(settings.folder)
    if settings.as_json:
        for row in rows:
            print(json.dumps(row))
        return
    if not rows:
        print(f"there are no runs in {settings.folder}. Start one: inkling demo, or inkling train")
        return
    table = [list(_COLUMNS), *([_cell(row.get(name)) for name in _COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


_COLUMNS = {
    "run": "run",
    "status": "status",
    "architecture": "architecture",
    "parameters": "params",
    "steps": "steps",
    "best val loss": "best_val_loss",
    "bits per byte": "bits_per_byte",
    "started": "started",
}


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")[:80]


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """What is known about each run below `folder`; a damaged one is listed as such."""
    from inkling import checkpoint

    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}. Start a run: inkling demo, or inkling train")
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob(f"*/{checkpoint.RUN_FILE}"), key=lambda path: path.stat().st_mtime):
        try:
            record = checkpoint.read_run(path.parent)
        except CheckpointError as error:
            rows.append({"run": str(path.parent), "status": f"damaged: {error}"})
            continue
        rows.append(
            {
                "run": str(path.parent),
                "status": record.status,
                "architecture": record.settings.get("arch"),
                "params": record.num_parameters,
                "steps": record.results.get("steps"),
                "best_val_loss": record.results.get("best_val_loss"),
                "bits_per_byte": record.results.get("validation", {}).get("val_bits_per_byte"),
                "started": record.sessions[0]["started"] if record.sessions else None,
            }
        )
    return rows
