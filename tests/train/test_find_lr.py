"""The range test: judged on curves of a known shape, and run on a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inkling.cli import main
from inkling.train.find_lr import HIGHEST, LOWEST, judge


def test_the_suggestion_is_where_the_loss_first_stops_falling() -> None:
    factors = np.geomspace(LOWEST, HIGHEST, 200).tolist()
    fall = [8 - 3 / (1 + np.exp(-3 * np.log10(factor / 0.1))) for factor in factors]
    bump = [0.4 * np.exp(-((np.log10(factor / 5) / 0.3) ** 2)) for factor in factors]
    late = [-0.5 if factor > 12 else 0.0 for factor in factors]
    found = judge(factors, [sum(parts) for parts in zip(fall, bump, late, strict=True)])
    assert 0.5 < found.suggestion < 3
    assert 0.05 < found.steepest < 0.2


def test_a_run_is_not_begun(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--find-lr", "--size", "0.8m", "--context", "32", "--batch-size", "4", "--steps", "60", "--json"]
    options += ["--model.num_hidden_layers", "1", "--machine.threads", "1", "--machine.precision", "fp32"]
    assert main(["train", str(data_folder), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert LOWEST < found["steepest"] <= found["suggestion"] < HIGHEST
    assert min(found["losses"]) < 0.9 * found["losses"][0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [Path(found["picture"]).name]
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
