"""What is known about a run, from its folder: one dictionary, which pages and comparisons are made of."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from inkling import checkpoint
from inkling.errors import CheckpointError, InklingError, reason_of
from inkling.report.lineage import lineage
from inkling.train.log import SAMPLES_FILE, read_metrics, read_samples

EVALUATIONS = "evaluations"
_MAX_SAMPLE = 2000


def facts_of(run: Path) -> dict[str, Any]:
    """All of it, of a run or of one of its checkpoints. Raises CheckpointError for what is neither."""
    folder, run = run, checkpoint.run_of(run)
    record = checkpoint.read_run(run)
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return {
        "run": str(folder),
        "status": record.status,
        "model_type": config.get("model_type"),
        "num_parameters": record.num_parameters,
        "shape": {name: value for name, value in config.items() if isinstance(value, (int, float, bool))},
        "choices": record.choices,
        "hardware": record.hardware,
        "versions": record.versions,
        "results": record.results,
        "cost": _cost(run, record),
        "curve": curve_of(run),
        "evaluations": evaluations_of(folder),
        "samples": _samples(run),
        "data": _data(record),
        "lineage": [link.__dict__ for link in lineage(run)],
    }


def curve_of(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Name → points of step and value: the average of the training loss, validation scores, rewards."""
    names = {"loss": "loss_average"} | {
        name: name for name in ("val_loss", "val_bits_per_byte", "reward", "val_reward")
    }
    rows = read_metrics(run)
    return {
        name: [(row["step"], float(row[key])) for row in rows if isinstance(row.get(key), (int, float))]
        for name, key in names.items()
    }


def evaluations_of(run: Path) -> dict[str, dict[str, Any]]:
    """What `inkling eval` kept: `text`, and each task, by name."""
    found = {}
    for path in sorted((run / EVALUATIONS).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is damaged ({reason_of(error)}): remove it, and run inkling eval again"
            ) from None
        found[path.stem] = content
    return found


def _cost(run: Path, record: checkpoint.RunRecord) -> dict[str, Any]:
    seconds = 0.0
    for session in record.sessions:
        if "ended" in session:
            start, end = (datetime.strptime(session[name], "%Y-%m-%dT%H:%M:%S%z") for name in ("started", "ended"))
            seconds += (end - start).total_seconds()
    speeds = (row.get("tokens_per_s") for row in read_metrics(run))
    rates = sorted(speed for speed in speeds if isinstance(speed, (int, float)))
    return {
        "sessions": len(record.sessions),
        "seconds_in_all": seconds,
        "seconds_of_training": record.results.get("train_seconds"),
        "tokens_per_s": rates[len(rates) // 2] if rates else None,
    }


def _samples(run: Path) -> dict[str, str]:
    """The first and the last of the samples that were written in training."""
    found = read_samples(run) if (run / SAMPLES_FILE).is_file() else []
    chosen = {"At the beginning": found[0], "At the end": found[-1]} if len(found) > 1 else {}
    return {title: text.strip()[:_MAX_SAMPLE] for title, text in chosen.items()}


def _data(record: checkpoint.RunRecord) -> dict[str, Any] | None:
    """Of the data folder, if it is still there."""
    if "folder" not in record.data:
        return None
    folder = Path(str(record.data["folder"]))
    if "rows_sha256" in record.data:
        return {"folder": str(folder), "is_there": folder.exists(), "rows": True}
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, InklingError):
        return {"folder": str(folder), "is_there": False}
    splits = {
        name: {key: split[key] for key in ("num_documents", "num_tokens", "num_bytes")}
        for name, split in manifest.get("splits", {}).items()
    }
    report_file = folder / "report.json"
    report = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else {}
    dropped = {reason: entry.get("documents") for reason, entry in report.get("dropped", {}).items()}
    train = splits.get("train", {})
    return {
        "folder": str(folder),
        "is_there": True,
        "splits": splits,
        "dropped": dropped,
        "vocab_size": manifest.get("vocab_size"),
        "bytes_per_token": train["num_bytes"] / train["num_tokens"] if train.get("num_tokens") else None,
        "notes": manifest.get("notes", []),
    }
