"""Pilots: one as long as the run is the run, what was kept is found, a closed form is extrapolated exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from inkling.cli import main
from inkling.commands._hooks import evaluator
from inkling.data.loader import sequential_windows
from inkling.data.shards import Dataset
from inkling.tokenizer import Tokenizer
from inkling.train import choose, pilot
from inkling.train.scaling import LAW, expected, extrapolated
from inkling.train.settings import TrainSettings

RUN = ["--size", "0.8m", "--context", "16", "--batch-size", "2", "--model.num-hidden-layers", "1"]
RUN += [
    "--machine.threads",
    "1",
    "--machine.attention",
    "sdpa",
    "--machine.precision",
    "fp32",
    "--machine.compile",
    "no",
    "--no-log.samples",
]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_pilot_of_the_full_length_is_the_run(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], average: float
) -> None:
    command = ["train", str(data_folder), *RUN, "--steps", "12", "--out", str(tmp_path / "run"), "--json"]
    assert main([*command, "--average.decay", str(average), "--loop.eval-every", "12"]) == 0
    reached = json.loads(capsys.readouterr().out)
    assert reached["best_step"] == 12
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    settings, choices = TrainSettings.model_validate(record["settings"]), record["choices"]
    dataset, tokenizer = Dataset.open(data_folder), Tokenizer.load(data_folder)
    batches = list(sequential_windows(dataset.validation, 16, 2, dataset.eot_id))
    bits = pilot.train_pilot(
        settings,
        choices,
        choose.training_windows(settings, dataset, 2),
        torch.device("cpu"),
        steps=12,
        of_steps=12,
        score_fn=lambda model: evaluator(tokenizer)(model, batches)["val_bits_per_byte"],
    )
    assert bits == pytest.approx(reached["validation"]["val_bits_per_byte"], rel=1e-6)


def test_a_plan_pays_for_pilots_once_and_training_uses_them(
    data_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pilot, "MIN_STEPS", 4)
    command = [str(data_folder), *RUN, "--steps", "16", "--json"]
    assert main(["plan", *command, "--pilot", "0"]) == 0
    by_law = json.loads(capsys.readouterr().out)
    assert by_law["pilots"] == {}
    assert by_law["error"] == LAW.error
    assert main(["plan", *command]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert list(planned["pilots"]) == ["4", "8"]
    assert planned["by_law"] == by_law["bits_per_byte"] != planned["bits_per_byte"]
    assert planned["error"] < LAW.error

    def train_again(*args: object, **kwargs: object) -> float:
        raise AssertionError("it was kept")

    monkeypatch.setattr(pilot, "train_pilot", train_again)
    assert main(["plan", *command]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] == planned["bits_per_byte"]
    assert main(["train", *command, "--out", "run"]) == 0
    capsys.readouterr()
    kept = json.loads(Path("run/run.json").read_text())["choices"]["forecast"]
    assert kept["bits_per_byte"] == planned["bits_per_byte"]
    assert main(["plan", *command, "--schedule.peak", "0.5"]) != 0  # other rates are another run
    assert "it was kept" in capsys.readouterr().err
    (tmp_path / "cache" / "inkling" / "pilots.json").write_text('{"broken": 1')
    assert main(["plan", *command, "--pilot", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] == by_law["bits_per_byte"]


def test_a_power_law_is_extrapolated_exactly() -> None:
    def power(seen: float) -> float:
        return 3.0 * seen**-0.11

    bits, doublings = extrapolated(8.0, {0.5: 2 * power(0.5), 1.0: 2 * power(1.0)}, power)
    assert bits == pytest.approx(2 * power(8.0), rel=1e-12)
    assert doublings == pytest.approx(3.0)
    bits, _ = extrapolated(8.0, {1.0: 2 * power(1.0)}, power)  # one pilot tells the level, the law the slope
    assert bits == pytest.approx(2 * power(8.0), rel=1e-12)
    # Near the pilots their own slope holds, far away that of the law.
    flat = {0.5: 2.0, 1.0: 2.0}
    assert extrapolated(1.01, flat, power)[0] == pytest.approx(2.0, rel=1e-4)
    slope = math.log(extrapolated(2.0**40, flat, power)[0] / extrapolated(2.0**41, flat, power)[0])
    assert slope == pytest.approx(0.11 * math.log(2), rel=0.01)


def test_near_pilots_count_alone_and_far_ones_hardly() -> None:
    known: dict[str, Any] = {"block_parameters": 1e6, "text_tokens": 1e12, "bytes_per_token": 4.0, "ngram": 2.0}
    by_law = {tokens: expected(tokens=tokens, **known).bits_per_byte for tokens in (5e5, 1e6, 1.1e6, 2e6, 4e6, 1e12)}
    pilots = {tokens: 1.3 * by_law[tokens] for tokens in (5e5, 1e6)}
    told = {tokens: expected(tokens=tokens, pilots=pilots, **known) for tokens in (1.1e6, 2e6, 4e6, 1e12)}
    assert told[1.1e6].bits_per_byte == pytest.approx(1.3 * by_law[1.1e6], rel=0.01)
    ratios = [told[tokens].bits_per_byte / by_law[tokens] for tokens in told]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == pytest.approx(1.0, abs=0.05)
    errors = [found.error for found in told.values()]
    assert errors == sorted(errors)
    assert errors[0] < 0.015
    assert errors[-1] == pytest.approx(LAW.error, rel=0.1)


def test_pilots_take_what_the_budget_allows() -> None:
    assert pilot.lengths(10_000, 1.0, pilot.NOTHING) == []
    assert pilot.lengths(10_000, 1.0, pilot.Budget(0.15)) == [500, 1000]
    assert pilot.lengths(10_000, 1.0, pilot.BY_DEFAULT) == [100, 200]  # five minutes
    assert pilot.lengths(400, 0.05, pilot.BY_DEFAULT) == [100, 200]  # half the run: a minute would be more
    assert pilot.lengths(10_000, 0.01, pilot.BY_DEFAULT) == [2000, 4000]  # a minute: more than the share
    assert pilot.lengths(60, 1.0, pilot.BY_DEFAULT) == []  # too short to tell anything
    assert pilot.lengths(10_000, 10.0, pilot.BY_DEFAULT) == []


def test_warm_ups_shrink_with_the_run() -> None:
    settings = TrainSettings.model_validate({"data": Path("data")})
    short = pilot.shortened(settings, 0.25)
    assert short.schedule.warmup_steps == settings.schedule.warmup_steps / 4
    assert short.muon.momentum_warmup == settings.muon.momentum_warmup / 4
    assert pilot.shortened(settings, 1.0) == settings


def test_several_processes_leave_pilots_to_a_plan(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(data_folder), "--pilot", "0.1", "--devices", "2"]) == 2
    assert "run inkling plan before" in capsys.readouterr().err
