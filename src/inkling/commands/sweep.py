"""`inkling sweep`: the same run with every combination of some options, each result a row in one table."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import signal
import statistics
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inkling import checkpoint, files
from inkling.commands.train import start_or_resume
from inkling.config import Field
from inkling.errors import CheckpointError, ConfigError
from inkling.progress import LiveProgress
from inkling.train.settings import TrainSettings

TABLE_JSON, TABLE_CSV, PLOT = "sweep.json", "sweep.csv", "sweep.png"
_MAX_RUNS = 1000
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.+-]")


class Settings(TrainSettings):
    """Train once for every combination of the values given, and print one table, the best first.

    All other options are those of `inkling train`. Runs that are finished are not repeated: an interrupted sweep goes
    on when the same command is given again. With several seeds, means and standard deviations over them are added.

    Example: inkling sweep data/notes --vary muon.lr=0.01,0.02,0.04 --vary seed=1,2,3 --steps 500
    """

    vary: list[str] = Field([])
    """An option and its values, as muon.lr=0.01,0.02. Given several times, all combinations are run."""


def run(settings: Settings) -> int:
    """Train, write sweep.json, sweep.csv and sweep.png into the folder of the sweep, print the table."""
    if settings.data is None or settings.devices > 1 or settings.find_lr:
        raise ConfigError("a sweep trains new runs on a data folder, one device at a time")
    varied = parse(settings.vary)
    folder = settings.out or Path("runs") / f"{settings.data.resolve().name}-sweep"
    base = settings.model_dump(exclude_unset=True, exclude={"vary", "out", "config", "as_json", "resume"})
    jobs = [(values, _settings_of(base, values, folder)) for values in combinations(varied)]
    rows: list[dict[str, Any]] = []
    status = 0
    with LiveProgress(quiet=settings.as_json) as progress:
        for number, (values, train) in enumerate(jobs, start=1):
            said = ", ".join(f"{name}={value}" for name, value in values.items())
            progress.note(f"run {number} of {len(jobs)}: {said}")
            row = _result(train, values, progress)
            if row is None:
                status = 128 + signal.SIGINT
                break
            rows.append(row)
            write_table(folder, rows, varied)
    if settings.as_json:
        print(json.dumps({"folder": str(folder), "finished": status == 0, "runs": rows, "means": means(rows, varied)}))
    else:
        print_table(rows, varied)
        print(f"\nTable:  {folder / TABLE_CSV}    Picture:  {folder / PLOT}")
        if status:
            print("stopped; the same command goes on")
    return status


def parse(vary: list[str]) -> dict[str, list[Any]]:
    """`["muon.lr=0.01", "0.02"]`, as the command line cuts it at commas → `{"muon.lr": [0.01, 0.02]}`."""
    found: dict[str, list[Any]] = {}
    name = ""
    for piece in vary:
        head, equals, value = piece.partition("=")
        if equals:
            name = head.strip().lstrip("-").replace("-", "_")
            found.setdefault(name, [])
        else:
            value = piece
        if not name:
            raise ConfigError(f"--vary {piece}: say which option, as in --vary muon.lr=0.01,0.02")
        found[name].append(_value(value.strip()))
    if not found:
        raise ConfigError("nothing varies: add for example --vary muon.lr=0.01,0.02")
    if math.prod(map(len, found.values())) > _MAX_RUNS:
        raise ConfigError(f"these are more than {_MAX_RUNS} runs; vary less at once")
    return found


def _value(text: str) -> Any:
    """A number, true, false or null as in JSON; everything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def combinations(varied: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every choice of one value for each option."""
    return [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]


def _settings_of(base: dict[str, Any], values: dict[str, Any], folder: Path) -> TrainSettings:
    """The settings of one run. All are made before the first run begins, so that a bad value costs nothing."""
    merged: dict[str, Any] = json.loads(json.dumps(base, default=str))
    for name, value in values.items():
        *sections, last = name.split(".")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    run_name = "_".join(f"{name.split('.')[-1]}={value}" for name, value in values.items())
    try:
        return TrainSettings.model_validate({**merged, "out": folder / _NOT_IN_NAMES.sub("-", run_name)})
    except ValidationError as error:
        detail = error.errors()[0]
        raise ConfigError(f"--vary {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None


def _result(settings: TrainSettings, values: dict[str, Any], progress: LiveProgress) -> dict[str, Any] | None:
    """The row of one run, trained now or before; None when it was interrupted."""
    assert settings.out is not None
    try:
        record = checkpoint.read_run(settings.out)
    except CheckpointError:
        record = None
    if record is None or record.status != "finished":
        resumed = settings.model_copy(update={"resume": record is not None})
        _, record = start_or_resume(resumed, progress)
    if record.status != "finished":
        return None
    return {
        "run": str(settings.out),
        **values,
        "bits_per_byte": record.results["validation"]["val_bits_per_byte"],
        "val_loss": record.results["validation"]["val_loss"],
        "params": record.num_parameters,
        "steps": record.results["steps"],
        "train_seconds": record.results["train_seconds"],
    }


def means(rows: list[dict[str, Any]], varied: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, for each combination of the other options."""
    others = [name for name in varied if name != "seed"]
    if "seed" not in varied:
        return []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row[name] for name in others]), []).append(row)
    found = []
    for group in groups.values():
        scores = [row["bits_per_byte"] for row in group]
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        values = {name: group[0][name] for name in others}
        found.append({**values, "seeds": len(scores), "bits_per_byte": statistics.mean(scores), "deviation": spread})
    return sorted(found, key=lambda row: float(row["bits_per_byte"]))


def write_table(folder: Path, rows: list[dict[str, Any]], varied: dict[str, list[Any]]) -> None:
    """The rows so far as JSON, CSV and a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / TABLE_JSON, {"runs": rows, "means": means(rows, varied)})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(folder / TABLE_CSV, text.getvalue())
    plot(folder / PLOT, rows, varied)


def plot(path: Path, rows: list[dict[str, Any]], varied: dict[str, list[Any]]) -> None:
    """Bits per byte over the first option that varies and is no seed; a colour for each combination of the rest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes 0.3 s
    from matplotlib.figure import Figure

    others = [name for name in varied if name != "seed"]
    axis = others[0] if others else "seed"
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines: dict[str, list[tuple[Any, float]]] = {}
    for row in rows:
        label = ", ".join(f"{name}={row[name]}" for name in others[1:])
        lines.setdefault(label, []).append((row[axis], row["bits_per_byte"]))
    numeric = all(isinstance(value, (int, float)) and value > 0 for value in varied[axis])
    for label, points in lines.items():
        scores: dict[Any, list[float]] = {}
        for place, score in sorted(points) if numeric else points:
            scores.setdefault(place if numeric else str(place), []).append(score)
        (line,) = axes.plot(list(scores), [statistics.mean(some) for some in scores.values()], label=label or None)
        for place, some in scores.items():
            axes.plot([place] * len(some), some, "o", color=line.get_color(), alpha=0.7)
    if numeric and max(varied[axis]) >= 8 * min(varied[axis]):
        axes.set_xscale("log")
    if any(lines):
        axes.legend()
    axes.set(xlabel=axis, ylabel="bits per byte of validation text")
    axes.grid(alpha=0.3)
    files.write_file(path, lambda temporary: figure.savefig(temporary, format="png"))


def print_table(rows: list[dict[str, Any]], varied: dict[str, list[Any]]) -> None:
    """All runs, the best first, and the means over seeds."""
    _print_rows(sorted(rows, key=lambda row: float(row["bits_per_byte"])), [*varied, *_RESULTS])
    averages = means(rows, varied)
    if averages:
        print("\nover seeds:")
        _print_rows(averages, list(averages[0]))


_RESULTS = ("bits_per_byte", "val_loss", "params", "steps", "train_seconds")


def _print_rows(rows: list[dict[str, Any]], names: list[str]) -> None:
    table = [list(names), *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
