"""Runs and settings of every older format go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inkling import checkpoint, cli, config
from inkling.train.settings import TrainSettings
from inkling.upgrade import FORMAT_VERSION

ARGUMENTS = [
    "--size",
    "0.8m",
    "--context",
    "32",
    "--batch-size",
    "4",
    "--model.hidden_size",
    "32",
    "--log.eval_tokens",
    "512",
]
ARGUMENTS += [
    "--model.num_hidden_layers",
    "2",
    "--machine.threads",
    "1",
    "--machine.precision",
    "fp32",
    "--no-log.samples",
]


def as_format_1(run: Path) -> None:
    """What `run.json` was before: a switch for TensorBoard, no forecast, no measured peak."""
    path = run / checkpoint.RUN_FILE
    record = json.loads(path.read_text())
    record["format_version"] = 1
    record["settings"]["log"]["tensorboard"] = False
    for name in ("forecast", "peak_flops"):
        del record["choices"][name]
    path.write_text(json.dumps(record))


OLDER = {1: as_format_1}


def test_there_is_a_test_for_each_format() -> None:
    assert list(OLDER) == list(range(1, FORMAT_VERSION))


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize("upgraded", [True, False])
def test_a_run_goes_on(
    version: int, upgraded: bool, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert cli.main(["train", str(data_folder), "-o", str(run), "--steps", "3", *ARGUMENTS]) == 0
    OLDER[version](run)
    before = (run / "run.json").read_text()
    if upgraded:
        assert cli.main(["upgrade", str(run)]) == 0
        assert json.loads((run / "run.json").read_text())["format_version"] == FORMAT_VERSION
        assert (run / "run.json.before-upgrade").read_text() == before
        capsys.readouterr()
        assert cli.main(["upgrade", str(run)]) == 0
        assert "nothing to do" in capsys.readouterr().out
    assert cli.main(["train", "--resume", "-o", str(run), "--steps", "5"]) == 0
    record = checkpoint.read_run(run)
    assert record.results["steps"] == 5
    assert record.format_version == FORMAT_VERSION


def test_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.yaml"
    values: dict[str, Any] = {"data": "d", "log": {"tensorboard": True, "samples": False}}
    path.write_text(yaml.safe_dump(values))
    assert cli.main(["train", "--config", str(path)]) == 2
    assert "tensorboard" in capsys.readouterr().err
    assert cli.main(["upgrade", str(path)]) == 0
    assert config.load(TrainSettings, ["--config", str(path)], prog="train").log.samples is False
    for bad, what in [("[1]", "holds no settings"), ("a: [", "cannot be read")]:
        path.write_text(bad)
        assert cli.main(["upgrade", str(path)]) == 2
        assert what in capsys.readouterr().err


def test_a_run_starts_from_another(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["train", str(data_folder), "-o", str(first), "--steps", "5", "--arch", "llama", *ARGUMENTS]) == 0
    again = ["train", str(data_folder), "-o", str(second), "--start-from", str(first), "--context", "32"]
    again += [
        "--batch-size",
        "4",
        "--steps",
        "1",
        "--machine.threads",
        "1",
        "--machine.attention",
        "sdpa",
        "--machine.precision",
        "fp32",
    ]
    assert cli.main([*again, "--schedule.peak", "1e-6", "--no-log.samples"]) == 0
    scores = [checkpoint.read_run(run).results["validation"]["val_loss"] for run in (first, second)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert checkpoint.open_model(second).config == checkpoint.open_model(first).config
    capsys.readouterr()
    assert cli.main([*again, "--size", "3m", "--no-resume"]) == 2
    assert "brings its own shape" in capsys.readouterr().err
    assert cli.main(["train", str(data_folder), "--start-from", str(first), "-o", str(tmp_path / "third")]) == 2
    assert "take a smaller --context" in capsys.readouterr().err
