"""The written record of a run: training.log for people, JSON lines, CSV and TensorBoard events for programs."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from inkling import files
from inkling.errors import MissingExtraError
from inkling.train.events import EventFile

LOG_FILE, METRICS_FILE, SAMPLES_FILE = "training.log", "metrics.jsonl", "samples.txt"
TABLE_FILE, EVENTS_FOLDER = "metrics.csv", "tensorboard"
TABLE_COLUMNS = (
    *(
        "step",
        "loss",
        "loss_average",
        "val_loss",
        "val_bits_per_byte",
        "learning_rate",
        "gradient_norm",
        "tokens_per_s",
    ),
    *("gflops", "peak_share", "memory_mb", "elapsed_s", "epoch", "skipped"),
)
_TABLE_HEAD = ",".join(TABLE_COLUMNS) + "\n"
_RULE = "=" * 100
_SAMPLE_MARK = "---------------- step {} ----------------\n"


class SilentLog:
    """A log that writes nothing: of the processes of a run, the first one alone keeps a record."""

    def line(self, text: str, level: str = "INFO") -> None:
        """Nothing."""

    def session_starts(self, text: str) -> None:
        """Nothing."""

    def session_ends(self, text: str) -> None:
        """Nothing."""

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """Nothing."""

    def go_back_to(self, step: int) -> None:
        """Nothing."""

    def sample(self, step: int, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class RunLog(SilentLog):
    """Appends to the log files of one run.

    Args:
        run: Run directory.
        wandb_project: Send metrics to this project of Weights & Biases too, or None.
    """

    def __init__(self, run: Path, *, wandb_project: str | None = None) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._text = (run / LOG_FILE).open("a", encoding="utf-8", newline="\n")
        self._metrics = (run / METRICS_FILE).open("a", encoding="utf-8", newline="\n")
        self._table = _open_table(run / TABLE_FILE)
        self._events = EventFile(run / EVENTS_FOLDER)
        self._wandb = _open_wandb(wandb_project, run) if wandb_project is not None else None

    def line(self, text: str, level: str = "INFO") -> None:
        """One dated line in training.log; from any thread."""
        with self._lock:
            self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} | {level:<5} | {text}\n")
            self._text.flush()

    def session_starts(self, text: str) -> None:
        """A mark that is easy to find: each time the run is worked on begins with one."""
        self._text.write(f"{_RULE}\n")
        self.line(f"SESSION STARTED | {text}")

    def session_ends(self, text: str) -> None:
        """The mark at the end of a session."""
        self.line(f"SESSION ENDED | {text}")
        self._text.write(f"{_RULE}\n")
        self._text.flush()

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """One JSON object in metrics.jsonl; numbers that are not finite become null."""
        clean = {name: None if _is_not_finite(value) else value for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, **clean}, allow_nan=False) + "\n")
        self._metrics.flush()
        self._table.write(_table_line({"step": step, **clean}))
        self._table.flush()
        numbers = {name: float(value) for name, value in clean.items() if isinstance(value, (int, float))}
        for name, value in numbers.items():
            self._events.scalar(name, value, step)
        self._events.flush()
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def go_back_to(self, step: int) -> None:
        """Cut off the metrics after `step`: they belong to work that was lost or undone, and will be done again."""
        self._metrics.close()
        self._table.close()
        path = self.run / METRICS_FILE
        kept = [values for values in _whole_lines(path) if values["step"] <= step]
        files.write_text(path, "".join(json.dumps(values) + "\n" for values in kept))
        files.write_text(self.run / TABLE_FILE, _TABLE_HEAD + "".join(map(_table_line, kept)))
        self._metrics = path.open("a", encoding="utf-8", newline="\n")
        self._table = _open_table(self.run / TABLE_FILE)
        self._events.restart(step + 1)

    def sample(self, step: int, text: str) -> None:
        """One text that the model wrote after `step` steps."""
        with (self.run / SAMPLES_FILE).open("a", encoding="utf-8", newline="\n") as file:
            file.write(_SAMPLE_MARK.format(step) + text + "\n\n")

    def close(self) -> None:
        """Close the files."""
        self._text.close()
        self._metrics.close()
        self._table.close()
        self._events.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that a crash cut short is left out."""
    path = run / METRICS_FILE
    return list(_whole_lines(path)) if path.exists() else []


def _open_table(path: Path) -> TextIO:
    """metrics.csv, with its head when it is new."""
    file = path.open("a", encoding="utf-8", newline="\n")
    if file.tell() == 0:
        file.write(_TABLE_HEAD)
    return file


def _table_line(values: dict[str, Any]) -> str:
    """One line of metrics.csv: empty cells where a value was not measured."""
    return ",".join("" if (value := values.get(name)) is None else str(value) for name in TABLE_COLUMNS) + "\n"


def read_samples(run: Path) -> list[str]:
    """The texts of samples.txt, oldest first."""
    mark = re.escape(_SAMPLE_MARK).replace(r"\{\}", r"\d+")
    return [text.strip("\n") for text in re.split(mark, (run / SAMPLES_FILE).read_text(encoding="utf-8"))[1:]]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _open_wandb(project: str, run: Path) -> Any:
    try:
        import wandb  # an extra
    except ImportError:
        raise MissingExtraError("wandb", "wandb", "--log.wandb") from None
    config = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return wandb.init(project=project, name=run.name, id=_wandb_id(run), resume="allow", dir=str(run), config=config)


def _wandb_id(run: Path) -> str:
    """The same for each session of a run."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]


def plot_losses(run: Path, title: str, what: str = "loss, nats per token", *, rewards: bool = False) -> Path:
    """Draw `loss.png` from metrics.jsonl: training loss, its running average, validation loss and the best one.

    Args:
        rewards: Draw rewards, which are to become large, in place of losses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # 0.3 s, paid once at the end of a run
    from matplotlib.figure import Figure

    rows = read_metrics(run)
    key, average_key, val_key = ("reward", "reward", "val_reward") if rewards else ("loss", "loss_average", "val_loss")
    train = [(row["step"], row[key], row[average_key]) for row in rows if row.get(key) is not None]
    validation = [(row["step"], row[val_key]) for row in rows if row.get(val_key) is not None]
    if rewards:
        values = [value for _, value, _ in train]
        recent = [values[max(0, number - 9) : number + 1] for number in range(len(values))]
        train = [(step, value, sum(some) / len(some)) for (step, value, _), some in zip(train, recent, strict=True)]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if train:
        steps, losses, averages = zip(*train, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="training, each step")
        axes.plot(steps, averages, color="tab:blue", linewidth=1.5, label="training, running average")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color="tab:orange", marker="o", markersize=3, linewidth=1.5, label="validation")
        best_step, best = (max if rewards else min)(validation, key=lambda point: point[1])
        axes.plot([best_step], [best], "*", color="tab:red", markersize=12, label=f"best: {best:.4f} at {best_step}")
    axes.set(title=title, xlabel="step", ylabel=what)
    axes.grid(alpha=0.3)
    axes.legend()
    path = run / "loss.png"
    files.write_file(path, lambda temporary: figure.savefig(temporary, format="png"))
    return path
