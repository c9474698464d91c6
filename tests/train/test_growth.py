"""Runs in stages: where each begins, exact resumption, and the run without stages as the case of one stage."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_resume import assert_same_run, losses, settings, train

from inkling import checkpoint
from inkling.data.shards import Dataset
from inkling.data.stages import Stage, StagedWindows
from inkling.errors import ConfigError
from inkling.train import choose
from inkling.train.growth import GrowthSettings, mean_share, stages_of
from inkling.train.settings import TrainSettings

GROWTH = {"context": [8, 16], "batch": [0.25, 0.5, 0.75], "until": 0.6}


def stages(growth: dict[str, Any], steps: int, **more: Any) -> list[Stage]:
    found = stages_of(GrowthSettings(**growth), **{"context": 32, "batch_size": 4, "steps": steps, **more})
    return [Stage(**stage) for stage in found]


def test_stages_share_the_beginning_evenly() -> None:
    assert stages({}, 100) == []
    assert stages(GROWTH, 100) == [
        Stage(0, 8, 1),
        Stage(20, 8, 2),
        Stage(30, 16, 2),
        Stage(40, 16, 3),
        Stage(60, 32, 4),
    ]
    windows = [stage.windows for stage in stages(GROWTH, 100)]
    assert mean_share(GrowthSettings(**GROWTH)) == pytest.approx(np.dot(windows, [20, 10, 10, 20, 40]) / 400)
    assert stages(GROWTH, 1) == [Stage(0, 16, 3), Stage(1, 32, 4)]


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="12 does not divide the context of 32"):
        stages({"context": [12]}, 100)
    with pytest.raises(ConfigError, match="1 rows cannot be shared by 2 devices"):
        stages({"batch": [0.25]}, 100, world_size=2)


def test_a_run_whose_stages_are_all_whole_is_the_one_without(data_folder: Path, tmp_path: Path) -> None:
    without = train(settings(data_folder, tmp_path / "without"))
    constant = train(settings(data_folder, tmp_path / "constant", growth={"context": [32, 32], "batch": [1.0]}))
    assert len(checkpoint.read_run(constant).choices["stages"]) == 3
    assert_same_run(constant, without)


def test_a_run_in_stages_goes_on_exactly_wherever_it_was_stopped(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inkling.train.session import Session

    whole = train(settings(data_folder, tmp_path / "whole", growth=GROWTH))
    shown = Session._on_step

    def stop_now_and_then(self: Session, report: Any) -> None:
        shown(self, report)
        if report.step in (1, 4, 7):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Session, "_on_step", stop_now_and_then)
    run = train(settings(data_folder, tmp_path / "run", growth=GROWTH))
    for _ in range(3):
        train(TrainSettings(out=run, resume=True))
    assert checkpoint.read_run(run).status == "finished"
    assert_same_run(run, whole)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["context"] for row in rows if "loss" in row] == [8] * 4 + [16] * 3 + [32] * 5
    assert losses(run) != losses(train(settings(data_folder, tmp_path / "without")))


def test_what_a_step_of_a_timed_run_sees_is_settled_before_it_begins(data_folder: Path, tmp_path: Path) -> None:
    """The clock moves no stage: the record names the steps, and a session with another time keeps them."""
    timed = settings(data_folder, tmp_path / "run", steps=None, time=0.5, growth=GROWTH)
    run = train(timed)
    record = checkpoint.read_run(run)
    before = record.choices["stages"]
    assert before == stages_of(timed.growth, context=32, batch_size=4, steps=record.choices["forecast"]["steps"])
    train(TrainSettings(out=run, resume=True, time=1.0))
    assert checkpoint.read_run(run).choices["stages"] == before

    windows = choose.training_windows(timed, Dataset.open(data_folder), batch_size=4)
    staged = StagedWindows(windows, [Stage(**stage) for stage in before])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "loss" in row:
            assert row["context"] == staged.stage(row["step"] - 1).context
            assert row["epoch"] == staged.epochs(row["step"])
