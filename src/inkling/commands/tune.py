"""`inkling tune`: teach a run answers, preferences and rewards, or go on with that."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from inkling import checkpoint
from inkling.checkpoint import RunRecord
from inkling.commands._ending import end, predicted_beside_actual
from inkling.commands._hooks import exports_line, tasks_in_training, write_sample
from inkling.commands._processes import run_in_processes
from inkling.commands._rollouts import check_rewards, reward_fn, rollout_fn
from inkling.errors import CheckpointError, ConfigError
from inkling.progress import LiveProgress
from inkling.rewards import from_anywhere
from inkling.train import world
from inkling.train.resume import check_idle, free_run_path
from inkling.train.tune import TuningRun
from inkling.train.tune_settings import TuneSettings as Settings


def run(settings: Settings) -> int:
    """Tune, then say what came out and what to type next. Exit status 130 after Ctrl-C."""
    if settings.devices > 1 and not world.is_launched():
        return run_in_processes("tune", settings)
    here = world.join(settings.machine.device)
    try:
        with LiveProgress(quiet=settings.as_json or not here.is_main) as progress:
            work = prepared(settings, progress, here)
            if settings.plan:
                print(json.dumps(work.choices) if settings.as_json else "\nNext:  the same without --plan")
                return 0
            record = work.train()
    except world.PeerLostError:
        if here.is_main:
            raise
        return 1
    if not here.is_main:
        return 0
    return end(work.run, record, verb="tune", as_json=settings.as_json, tell=tell)


def tune(settings: Settings, progress: LiveProgress) -> tuple[Path, RunRecord]:
    """Do a new run, or go on with an interrupted one."""
    work = prepared(settings, progress)
    return work.run, work.train()


def prepared(settings: Settings, progress: LiveProgress, here: world.World = world.ALONE) -> TuningRun:
    """All that comes before the first step: rows are read, all is chosen, timed and said. Nothing is written."""
    record = None
    if settings.resume:
        assert settings.out is not None
        path, record = settings.out, checkpoint.read_run(settings.out)
        settings = _resumed(settings, record)
    else:
        assert settings.start_from is not None
        name = checkpoint.run_of(settings.start_from).resolve().name
        settings = _from_anywhere(settings)
        wanted = settings.out or Path("runs") / f"{name}-{settings.method}"
        path = Path(here.from_main(str(free_run_path(wanted)) if here.is_main else ""))
    return TuningRun(
        path,
        settings,
        record,
        sample_fn=write_sample,
        task_fn=tasks_in_training(settings.log.tasks, settings.log.task_data, settings.log.task_items),
        report=progress,
        rollout_fn=rollout_fn,
        reward_fn=reward_fn(settings.rl.rewards) if settings.rl.rewards else None,
        check_fn=partial(check_rewards, settings.rl.rewards, accept=settings.rl.accept_hackable),
        describe=exports_line,
        world=here,
    )


def _from_anywhere(settings: Settings) -> Settings:
    """The same, so that the run can be resumed from another folder; where its run and rows are, the record says."""
    distill, validation = settings.distill, settings.validation
    if distill.teacher is not None:
        distill = distill.model_copy(update={"teacher": distill.teacher.resolve()})
    changes = {
        "distill": distill,
        "validation": validation.resolve() if validation is not None else None,
        "rl": settings.rl.model_copy(update={"rewards": list(map(from_anywhere, settings.rl.rewards))}),
    }
    return settings.model_copy(update=changes)


def _resumed(asked: Settings, record: RunRecord) -> Settings:
    """The settings that a run was begun with. Raises for a run that cannot be gone on with, or other settings."""
    assert asked.out is not None
    if "method" not in record.settings:
        raise CheckpointError(f"{asked.out} is no run of tuning: inkling train --resume --out {asked.out}")
    check_idle(asked.out, record)
    if record.status == "finished":
        raise CheckpointError(f"{asked.out} is finished; tune it further as a new run: inkling tune {asked.out} DATA")
    stored = Settings(**record.settings)
    free = {"resume", "out", "as_json", "config", "debug", "devices"}
    differing = [name for name in asked.model_fields_set - free if getattr(asked, name) != getattr(stored, name)]
    if differing:
        raise ConfigError(
            f"a resumed run keeps its settings; {', '.join(sorted(differing))} cannot change: leave it out"
        )
    return stored.model_copy(
        update={"start_from": Path(record.data["start_from"]), "data": Path(record.data["folder"])}
    )


def tell(path: Path, record: RunRecord) -> None:
    """What a person wants to know about a finished run."""
    results = record.results
    before, after = results["start"], results["validation"]
    print(f"validation, best weights (step {results['best_step']}), from before to after:")
    for name, value in after.items():
        print(f"  {name.removeprefix('val_'):<20} {before.get(name, float('nan')):>9.4f} → {value:.4f}")
    if results["best_step"] == 0:
        print("No evaluation was better than the start: these are the weights that it began with. Try a lower rate?")
    if forecast := record.choices.get("forecast"):
        print(predicted_beside_actual(forecast, results))
    kinds = {warning[:20]: warning for warning in results.get("warnings", [])}  # the last of each kind
    for warning in kinds.values():
        print(f"Warning: {warning}")
    if (path / checkpoint.ADAPTER_FOLDER).is_dir():
        print(f"Adapter, in PEFT's format:  {path / checkpoint.ADAPTER_FOLDER}")
    print(f"Loss curve:  {path / 'loss.png'}")
    print(f"Next:  inkling chat {path}  ·  inkling serve {path}  ·  inkling export {path} gguf")
