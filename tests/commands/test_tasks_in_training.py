"""Tasks that are put while a run is trained: told beside its other scores, and without a trace in its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import words
from inkling import cli
from inkling.sandbox import protection_here
from inkling.tensor_files import read_tensors

OPTIONS = ["--steps", "8", "--batch-size", "16", "--context", "64", "--loop.eval-every", "4", "--model.dropout", "0.1"]
OPTIONS += [
    "--machine.compile",
    "no",
    "--machine.threads",
    "1",
    "--machine.attention",
    "sdpa",
    "--machine.precision",
    "fp32",
]
OPTIONS += ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    for number in range(20):
        (text / f"{number}.txt").write_text(f"story {number}. " + words(number, 800))
    folder = tmp_path / "data"
    assert cli.main(["prep", str(text), "-o", str(folder), "--vocab-size", "300", "--val-fraction", "0.3"]) == 0
    return folder


def test_they_leave_no_trace(data: Path, tmp_path: Path) -> None:
    tasks = ["copying", "code_suite_fair"] if protection_here() != "limits" else ["copying", "sorting"]
    given = ["--log.tasks", json.dumps(tasks), "--log.task-items", "4"]
    assert cli.main(["train", str(data), "-o", str(tmp_path / "plain"), *OPTIONS]) == 0
    assert cli.main(["train", str(data), "-o", str(tmp_path / "asked"), *OPTIONS, *given]) == 0
    folders = (tmp_path / "plain", tmp_path / "asked")
    plain, asked = (read_tensors(one / "model.safetensors", verify=True)[0] for one in folders)
    assert all(torch.equal(plain[name], asked[name]) for name in plain)
    rows = [json.loads(line) for line in (tmp_path / "asked" / "metrics.jsonl").read_text().splitlines()]
    scores = [row for row in rows if "val_loss" in row]
    assert len(scores) >= 3
    assert all(0 <= row["copying/right"] <= 1 for row in scores)


def test_an_unknown_task_is_refused_before_the_run(data: Path, tmp_path: Path) -> None:
    for given in (["--log.tasks", '["copyin"]'], ["--log.tasks", '["humaneval"]']):
        assert cli.main(["train", str(data), "-o", str(tmp_path / "run"), *OPTIONS, *given]) == 2
        assert not (tmp_path / "run").exists()
