"""Which run to work on: a new folder, or one that was interrupted, with the settings it was begun with."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from inkling import checkpoint, machine
from inkling.checkpoint import RunRecord
from inkling.errors import CheckpointError, ConfigError
from inkling.train.settings import TrainSettings


def new_run_path(settings: TrainSettings) -> Path:
    """Where a new run goes: a folder that does not exist yet, so that no run is ever overwritten."""
    assert settings.data is not None
    return free_run_path(settings.out or Path("runs") / settings.data.resolve().name)


def free_run_path(wanted: Path) -> Path:
    """This folder where nothing is in it, else the next of its name with a number."""
    path, number = wanted, 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    return path


def with_source(settings: TrainSettings) -> TrainSettings:
    """The settings of a new run, the architecture being that of the model it starts from, if from any.

    Raises ConfigError when that model cannot see so many tokens at once.
    """
    if settings.start_from is None:
        return settings
    stored = checkpoint.open_model(settings.start_from)
    if stored.quantization is not None:
        raise ConfigError(f"{settings.start_from} is quantized: start from the run that it was made from, with --qat")
    config = stored.config
    if settings.context > config.max_position_embeddings:
        raise ConfigError(
            f"{settings.start_from} sees {config.max_position_embeddings:,} tokens at once: take a smaller --context"
        )
    return settings.model_copy(update={"arch": config.model_type})


def check_idle(run: Path, record: RunRecord) -> None:
    """Raises CheckpointError while another process trains the run: two would write over each other."""
    process = record.sessions[-1].get("process", {}) if record.sessions else {}
    if record.status == "running" and machine.is_running(process):
        raise CheckpointError(f"{run} is being trained by process {process['pid']}; stop that one first")


def unfinished_runs(folder: Path) -> list[Path]:
    """Runs below `folder` that could be resumed, the most recent last."""
    found = []
    for path in folder.glob(f"*/{checkpoint.RUN_FILE}"):
        try:
            record = checkpoint.read_run(path.parent)
            if record.status not in ("finished", "imported", "grown") and "method" not in record.settings:
                found.append(path)
        except CheckpointError:
            continue
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


_CHANGEABLE = {"steps", "time", "resume", "out", "data", "config", "debug", "as_json", "preset", "devices"}


def _stored_settings(record: RunRecord) -> TrainSettings:
    """The settings that a run was begun with. Raises CheckpointError for those of a version that knew others."""
    try:
        return TrainSettings(**record.settings)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
        raise CheckpointError(
            f"the run was begun by Inkling {record.versions.get('inkling', 'of an unknown version')}, "
            f"whose settings this one does not know: {keys}. Start a new run with --no-resume"
        ) from None


def resumed_settings(record: RunRecord, asked: TrainSettings) -> TrainSettings:
    """The settings of a stored run, with a new length where one was asked for.

    Raises ConfigError for any other setting that differs: it would make the resumed run another run.
    """
    if "method" in record.settings:
        raise CheckpointError("it is a run of tuning: inkling tune --resume --out RUN")
    stored = _stored_settings(record)
    differing = [name for name in asked.model_fields_set - _CHANGEABLE if getattr(asked, name) != getattr(stored, name)]
    if differing:
        raise ConfigError(
            f"a resumed run keeps its settings; {', '.join(sorted(differing))} cannot change. "
            "Leave it out, or start a new run with --no-resume"
        )
    if asked.steps is not None:
        record.choices["steps"] = asked.steps
    changes = {name: getattr(asked, name) for name in ("steps", "time") if getattr(asked, name) is not None}
    return stored.model_copy(update={**changes, "data": Path(record.data["folder"])})
