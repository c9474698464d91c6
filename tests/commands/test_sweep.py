"""`inkling sweep`: every combination once, one table, and the same command goes on where it stopped."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from inkling import checkpoint
from inkling.cli import main
from inkling.commands.sweep import combinations, means, parse
from inkling.errors import ConfigError

OPTIONS = ["--size", "0.8m", "--context", "32", "--batch-size", "4", "--steps", "4", "--no-log.samples", "--json"]
OPTIONS += ["--model.num_hidden_layers", "1", "--machine.threads", "1", "--machine.precision", "fp32"]
OPTIONS += ["--machine.compile", "no", "--machine.micro_batch", "4", "--log.eval_tokens", "256"]


def test_values_are_read_as_yaml_and_combined() -> None:
    varied = parse(
        ["muon.lr=0.01", "2e-2", "--batch-size=4", "optimizer=adamw", "muon", "model.tie_word_embeddings=true"]
    )
    assert varied == {
        "muon.lr": [0.01, 0.02],
        "batch_size": [4],
        "optimizer": ["adamw", "muon"],
        "model.tie_word_embeddings": [True],
    }
    assert len(combinations(varied)) == 4


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ([], "nothing varies"),
        (["0.01"], "say which option"),
        (["muon.lr=0.01", "none"], "muon.lr"),
        (["muon.rate=1"], "muon.rate"),
        (["seed=1", "--devices"], "one device at a time"),
        (["seed=" + "1", *map(str, range(1001))], "more than 1000"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    vary: list[str], words: str, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--vary", ",".join(vary)] if vary else []
    if "--devices" in vary:
        more = ["--vary", vary[0], "--devices", "2"]
    assert main(["sweep", str(data_folder), "-o", str(tmp_path / "sweep"), *more, *OPTIONS]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_every_run_is_a_row_and_is_run_once(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sweep", str(data_folder), "-o", str(tmp_path / "sweep"), *OPTIONS]
    command += ["--vary", "muon.lr=0.01,0.02", "--vary", "seed=1,2"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    times = {row["run"]: (Path(row["run"]) / "run.json").stat().st_mtime_ns for row in first["runs"]}
    assert [(row["muon.lr"], row["seed"]) for row in first["runs"]] == [(0.01, 1), (0.01, 2), (0.02, 1), (0.02, 2)]
    for row in first["runs"]:
        record = checkpoint.read_run(Path(row["run"]))
        assert record.settings["muon"]["lr"] == row["muon.lr"]
        assert record.settings["seed"] == row["seed"]
        assert record.results["validation"]["val_bits_per_byte"] == row["bits_per_byte"]
    with (tmp_path / "sweep/sweep.csv").open() as file:
        assert [float(row["bits_per_byte"]) for row in csv.DictReader(file)] == [
            row["bits_per_byte"] for row in first["runs"]
        ]
    assert (tmp_path / "sweep/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert main(command) == 0
    again: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert again == first
    assert times == {run: (Path(run) / "run.json").stat().st_mtime_ns for run in times}


def test_means_are_over_seeds() -> None:
    rows = [{"x": x, "seed": seed, "bits_per_byte": x + seed} for x in (1, 2) for seed in (0, 2)]
    assert means(rows, {"x": [1, 2], "seed": [0, 2]}) == [
        {"x": 1, "seeds": 2, "bits_per_byte": 2, "deviation": pytest.approx(2**0.5)},
        {"x": 2, "seeds": 2, "bits_per_byte": 3, "deviation": pytest.approx(2**0.5)},
    ]
    assert means(rows, {"x": [1, 2]}) == []


def test_an_option_without_a_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match="say which option"):
        parse(["5"])
