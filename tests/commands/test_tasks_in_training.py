"""Tasks that are put while a run is trained: told beside its other scores, and without a trace in its weights."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

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
    "--machine.micro-batch",
    "16",
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


def test_each_task_has_its_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks with files, and a run that stops between and goes on: the scores and weights of one that did not."""
    from inkling.train.session import Session

    choices = tmp_path / "choices.jsonl"
    choices.write_text(json.dumps({"question": "the cat", "choices": ["sat", "rain"], "answer": 0}) + "\n")
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "one and one?", "answer": "#### 2"}) + "\n")
    given = ["--log.tasks", f"multiple_choice={choices},gsm8k={problems}"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert cli.main(["train", str(data), "-o", str(whole), *OPTIONS, *given]) == 0
    shown = Session._on_step

    def stop_once(self: Session, report: Any) -> None:
        shown(self, report)
        if report.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Session, "_on_step", stop_once)
    assert cli.main(["train", str(data), "-o", str(resumed), *OPTIONS, *given]) == 130
    assert cli.main(["train", "-o", str(resumed), "--resume"]) == 0
    one, other = (read_tensors(run / "model.safetensors", verify=True)[0] for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    scores = []
    for run in (whole, resumed):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        scores.append(
            [(row["step"], row["multiple_choice/acc"], row["gsm8k/right"]) for row in rows if "val_loss" in row]
        )
    assert scores[0] == scores[1]


def test_what_cannot_be_asked_is_refused_before_the_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tasks, said in (
        ("copyin", "did you mean 'copying'?"),
        ("humaneval", "give it as NAME=FILE, where the file is HumanEval.jsonl.gz"),
        ("copying,copying", "each task once, please: copying, copying"),
        ("gsm8k=none.jsonl", "cannot read none.jsonl: No such file or directory\n"),
    ):
        assert cli.main(["train", str(data), "-o", str(tmp_path / "run"), *OPTIONS, "--log.tasks", tasks]) != 0
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
