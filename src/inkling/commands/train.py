"""`inkling train`: start a run, or go on with an interrupted one."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from inkling import checkpoint
from inkling.checkpoint import RunRecord
from inkling.commands._ending import end, predicted_beside_actual
from inkling.commands._hooks import difficulty_of, evaluator, exports_line, tasks_in_training, write_sample
from inkling.commands._processes import run_in_processes
from inkling.errors import CheckpointError, ConfigError
from inkling.progress import LiveProgress
from inkling.train import pilot, world
from inkling.train.find_lr import plot, range_test
from inkling.train.launch import PretrainingRun
from inkling.train.probe import threads
from inkling.train.resume import check_idle, new_run_path, resumed_settings, unfinished_runs, with_source
from inkling.train.settings import TrainSettings as Settings

FIND_LR_STEPS = 120


def run(settings: Settings) -> int:
    """Train, then say what came out and what to type next. Exit status 130 after Ctrl-C."""
    if settings.find_lr:
        find_lr(settings)
        return 0
    if settings.pilot and (settings.devices > 1 or world.is_launched()):
        raise ConfigError("pilots are trained by one process: leave out --pilot here, and run inkling plan before")
    if settings.devices > 1 and not world.is_launched():
        return run_in_processes("train", settings)
    here = world.join(settings.machine.device)
    try:
        with LiveProgress(quiet=settings.as_json or not here.is_main) as progress:
            path, record = start_or_resume(settings, progress, here)
    except world.PeerLostError:
        if here.is_main:
            raise
        return 1
    if not here.is_main:
        return 0
    return end(path, record, verb="train", as_json=settings.as_json, tell=tell)


def find_lr(settings: Settings) -> None:
    """The range test of the run that these settings describe, as a picture and a suggestion."""
    with LiveProgress(quiet=settings.as_json) as progress:
        work = planned_run(settings, progress)
        num_steps = min(FIND_LR_STEPS, settings.steps or FIND_LR_STEPS)
        with threads(work.choices["num_threads"]):
            test = range_test(
                work.settings,
                work.choices,
                work.windows,
                work.device,
                num_steps=num_steps,
                on_step=lambda step: progress("range test", step, num_steps),
            )
    picture = work.run.with_name(f"{work.run.name}-find-lr.png")
    plot(test, picture, f"{work.settings.arch}, {work.choices['num_parameters'] / 1e6:.1f} M parameters")
    if settings.as_json:
        print(json.dumps({"suggestion": test.suggestion, "picture": str(picture), **asdict(test)}))
        return
    print(f"\nThe loss falls until × {test.suggestion:.2g} of the learning rates, fastest at × {test.steepest:.2g}")
    print(f"Picture:  {picture}")
    print(f"Suggested:  --schedule.peak {test.suggestion:.2g}")


def planned_run(settings: Settings, progress: LiveProgress, pilots: pilot.Budget = pilot.NOTHING) -> PretrainingRun:
    """The run, all its choices made and nothing of it on disk. Raises ConfigError where that would be another run."""
    if settings.data is None:
        raise ConfigError("give a data folder: only a new run can be planned")
    if settings.devices > 1:
        raise ConfigError("one process is timed here, and --devices would need several: leave it out")
    path = new_run_path(settings)
    settings = with_source(settings)
    return PretrainingRun(
        path,
        settings,
        None,
        evaluator=evaluator,
        sample_fn=write_sample,
        task_fn=tasks_in_training(settings.log.tasks, settings.log.task_data, settings.log.task_items),
        report=progress,
        difficulty=difficulty_of,
        describe=exports_line,
        pilots=pilots,
    )


def start_or_resume(
    settings: Settings, progress: LiveProgress, here: world.World = world.ALONE
) -> tuple[Path, RunRecord]:
    """Train a new run, or the interrupted one that the settings or the user point at."""
    resumed, path = here.from_main(_which_run(settings) if here.is_main else None)
    path = Path(path)
    record = checkpoint.read_run(path) if resumed else None
    if record is not None:
        settings = resumed_settings(record, settings)
    else:
        settings = with_source(settings)
    work = PretrainingRun(
        path,
        settings,
        record,
        evaluator=evaluator,
        sample_fn=write_sample,
        task_fn=tasks_in_training(settings.log.tasks, settings.log.task_data, settings.log.task_items),
        report=progress,
        difficulty=difficulty_of,
        describe=exports_line,
        pilots=pilot.Budget(settings.pilot) if settings.pilot else pilot.NOTHING,
        world=here,
    )
    return path, work.train()


def _which_run(settings: Settings) -> tuple[bool, str]:
    """Whether to go on with a run, and the folder of that one or of a new one."""
    resumed = _run_to_resume(settings)
    return resumed is not None, str(resumed or new_run_path(settings))


def tell(path: Path, record: RunRecord) -> None:
    """What a person wants to know about a finished run."""
    results = record.results
    scores = results["validation"]
    print(
        f"validation, the whole split, best weights (step {results['best_step']}): "
        f"loss {scores['val_loss']:.4f} nats/token, {scores['val_bits_per_byte']:.4f} bits per byte"
    )
    if forecast := record.choices.get("forecast"):
        print(predicted_beside_actual(forecast, results))
    print(f"Loss curve:  {path / 'loss.png'}")
    print(f"Next:  inkling generate {path}  ·  inkling eval {path}  ·  inkling chat {path}")


def _run_to_resume(settings: Settings) -> Path | None:
    """The run to go on with, or None for a new one."""
    if settings.resume is False:
        return None
    wanted = settings.out or (Path("runs") / settings.data.resolve().name if settings.data else None)
    if settings.resume:
        return _resumable(wanted, settings) if wanted else _latest_unfinished()
    if wanted is None or not (wanted / checkpoint.RUN_FILE).exists():
        return None
    record = checkpoint.read_run(wanted)
    if record.status in ("finished", "imported", "grown"):
        return None
    check_idle(wanted, record)
    return _ask(wanted, record, settings)


def _resumable(path: Path, settings: Settings) -> Path:
    record = checkpoint.read_run(path)
    check_idle(path, record)
    if record.status in ("imported", "grown"):
        raise CheckpointError(f"{path} was imported, not trained here: inkling train DATA --start-from {path}")
    if record.status == "finished" and settings.steps is None and settings.time is None:
        raise CheckpointError(f"{path} is finished; give --steps or --time to train it further")
    return path


def _latest_unfinished() -> Path:
    found = unfinished_runs(Path("runs"))
    if not found:
        raise CheckpointError(
            "there is no interrupted run in runs/. Name one with --out, or start one with a data folder"
        )
    check_idle(found[-1], checkpoint.read_run(found[-1]))
    return found[-1]


def _ask(path: Path, record: RunRecord, settings: Settings) -> Path | None:
    step = record.sessions[-1].get("to_step", "unknown") if record.sessions else 0
    if not sys.stdin.isatty() or settings.as_json:
        raise ConfigError(
            f"{path} is an interrupted run (step {step}): add --resume to go on, or --no-resume to start another"
        )
    answer = input(f"{path} is an interrupted run (step {step}). Go on with it? [Y/n] ")
    return None if answer.strip().lower().startswith("n") else path
