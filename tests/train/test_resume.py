"""A resumed run equals the uninterrupted one, bit for bit: losses and weights, whatever interrupted it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inkling import checkpoint
from inkling.commands.train import start_or_resume
from inkling.progress import LiveProgress
from inkling.train.settings import TrainSettings

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16, "intermediate_size": 64}


def settings(data: Path, out: Path, **more: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "data": data,
        "out": out,
        "size": "0.8m",
        "model": {**TINY, "dropout": 0.1},
        "context": 32,
        "batch_size": 4,
        "steps": 12,
        "machine": {"precision": "fp32", "compile": "no", "threads": 1, "attention": "sdpa", "micro_batch": 2},
        "average": {"decay": 0.9},
        "loop": {"eval_every": 4, "log_every": 1},
        "checkpoint": {"every": 3},
        "log": {"samples": False, "eval_tokens": 512},
    }
    return TrainSettings.model_validate({**values, **more})


def train(run_settings: TrainSettings) -> Path:
    with LiveProgress(quiet=True) as progress:
        return start_or_resume(run_settings, progress)[0]


def losses(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def assert_same_run(run: Path, reference: Path, last_step: int = 12) -> None:
    assert losses(run) == losses(reference)
    for name in ("model.safetensors", f"checkpoints/step-{last_step:06d}/model.safetensors"):
        ours, theirs = load_file(run / name), load_file(reference / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), f"{name}: {key}"


@pytest.fixture(scope="module", params=["muon", "adamw"])
def uninterrupted(request: pytest.FixtureRequest, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    torch.set_num_threads(1)
    return train(settings(data_folder, out, optimizer=request.param))


def stored_optimizer(run: Path) -> str:
    return str(checkpoint.read_run(run).settings["optimizer"])


@pytest.mark.parametrize("stop_step", [1, 5, 9])
def test_a_run_that_is_asked_to_stop_goes_on_exactly(
    stop_step: int, uninterrupted: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inkling.train.session import Session

    shown = Session._on_step

    def stop_after(self: Session, report: Any) -> None:
        shown(self, report)
        if report.step == stop_step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Session, "_on_step", stop_after)
    out = tmp_path / "run"
    run = train(settings(data_folder, out, optimizer=stored_optimizer(uninterrupted)))
    record = checkpoint.read_run(run)
    assert record.status == "interrupted"
    assert record.results["steps"] == stop_step
    monkeypatch.undo()

    train(TrainSettings(out=out, resume=True))
    assert checkpoint.read_run(run).status == "finished"
    assert_same_run(run, uninterrupted)


def test_an_exception_saves_the_run(
    uninterrupted: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inkling.train.session import Session

    shown = Session._on_step

    def fail_after(self: Session, report: Any) -> None:
        shown(self, report)
        if report.step == 7:
            raise RuntimeError("a cable came loose")

    monkeypatch.setattr(Session, "_on_step", fail_after)
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="cable"):
        train(settings(data_folder, out, optimizer=stored_optimizer(uninterrupted)))
    monkeypatch.undo()
    assert (out / "checkpoints" / "step-000007").is_dir()
    assert checkpoint.read_run(out).status == "failed"
    train(TrainSettings(out=out, resume=True))
    assert_same_run(out, uninterrupted)


def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    uninterrupted: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(settings(data_folder, out, optimizer=stored_optimizer(uninterrupted)))
    newest = out / "checkpoints" / "step-000012" / "training_state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    record = checkpoint.read_run(out)
    record.status = "interrupted"
    checkpoint.write_run(out, record)

    train(TrainSettings(out=out, resume=True))
    log = (out / "training.log").read_text()
    assert "checkpoint step-000012 is passed over" in log
    assert "resumed at step 9" in log
    assert_same_run(out, uninterrupted)


def test_a_run_that_is_killed_ends_with_the_same_weights(data_folder: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    longer = {"steps": 120, "loop": {"eval_every": 60, "log_every": 1}}
    train(settings(data_folder, whole, **longer))
    file = tmp_path / "settings.yaml"
    file.write_text(settings(data_folder, out, **longer).model_dump_json(exclude={"config", "resume"}))
    command = [sys.executable, "-m", "inkling", "train"]
    arguments = ["--config", str(file)]
    for step in (12, 60):
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and latest_step(out) < step:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert step <= latest_step(out) < 120
        arguments = ["--out", str(out), "--resume"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    assert_same_run(out, whole, last_step=120)


def latest_step(run: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("step-*")), default=-1)


def test_resuming_with_other_settings_is_refused(uninterrupted: Path) -> None:
    from inkling.errors import ConfigError

    with pytest.raises(ConfigError, match="context cannot change"):
        train(TrainSettings(out=uninterrupted, resume=True, steps=20, context=64))


def test_a_run_that_another_process_trains_is_left_alone(data_folder: Path, tmp_path: Path) -> None:
    from inkling import machine
    from inkling.errors import CheckpointError

    run = train(settings(data_folder, tmp_path / "run", steps=2))
    record = checkpoint.read_run(run)
    record.status = "running"
    record.sessions[-1]["process"] = machine.this_process()
    checkpoint.write_run(run, record)
    with pytest.raises(CheckpointError, match=f"is being trained by process {os.getpid()}"):
        train(TrainSettings(out=run, resume=True))
    record.sessions[-1]["process"]["since"] -= 5  # the number was given to a new process
    checkpoint.write_run(run, record)
    train(TrainSettings(out=run, resume=True, steps=3))
    assert checkpoint.read_run(run).results["steps"] == 3
