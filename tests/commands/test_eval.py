"""`inkling eval` from its command line: what it says to input that cannot be used, and after Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from conftest import words
from inkling import cli
from inkling.eval import perplexity
from inkling.sandbox import protection_here

SHAPE = ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]
TRAINED = [*SHAPE, "--steps", "2", "--batch-size", "4", "--context", "64", "--machine.precision", "fp32"]
TRAINED += ["--machine.compile", "no", "--machine.threads", "1", "--machine.micro-batch", "4"]


@pytest.fixture(scope="module")
def run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    assert cli.main(["train", str(data_folder), "-o", str(folder), *TRAINED]) == 0
    return folder


def without_validation(folder: Path, name: str, into: Path) -> Path:
    """A data folder as others may make one: all its text is for training."""
    made = into / name
    shutil.copytree(folder, made)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["splits"]["validation"]["shards"] = []
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made


def test_bad_rows_are_named_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"question": "q", "choices": ["a", "b"], "answer": 1})
    for row, said in (
        ('{"questi', f"{path}:2: no JSON (Unterminated string starting at: line 1 column 2 (char 1))"),
        ("3", f"{path}:2: question is missing or not a text, as each row of FILE.jsonl has it"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', f"{path}:2: a question needs two choices at least"),
    ):
        path.write_text(f"{good}\n{row}\n")
        capsys.readouterr()
        assert cli.main(["eval", str(run), "--task", f"multiple_choice={path}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"inkling: {said}")


def test_an_empty_validation_split(
    run: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = without_validation(data_folder, "empty", tmp_path)
    said = f"inkling: the validation split of {empty} is empty: see inkling prep --val-fraction\n"
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--data", str(empty)]) == 1
    assert capsys.readouterr().err == said
    assert cli.main(["train", str(empty), "-o", str(tmp_path / "run"), *TRAINED]) == 1
    assert capsys.readouterr().err.endswith(said)
    assert not (tmp_path / "run").exists()
    assert cli.main(["eval", str(run), "--data", str(empty), "--split", "train", "--json", "--no-floors"]) == 0
    assert json.loads(capsys.readouterr().out)["num_documents"] > 0


def test_a_source_without_validation_text_is_left_out(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = without_validation(data_folder, "empty", tmp_path)
    mixed, run = tmp_path / "mixed", tmp_path / "run"
    assert cli.main(["mix", str(data_folder), str(empty), "-o", str(mixed)]) == 0
    assert cli.main(["train", str(mixed), "-o", str(run), *TRAINED]) == 0
    assert "nan" not in (run / "metrics.jsonl").read_text().lower()
    assert cli.main(["eval", str(run), "--no-floors"]) == 0
    assert "bits per byte by source:" in capsys.readouterr().out
    found = json.loads((run / "evaluations" / "text.json").read_text())
    assert list(found["sources"]) == [data_folder.name]
    assert found["sources"][data_folder.name]["num_bytes"] == found["num_bytes"]


def test_figures_by_source(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, other = tmp_path / "text", tmp_path / "other"
    text.mkdir()
    for number in range(30):
        (text / f"{number}.txt").write_text(words(900 + number, 150))
    prepared = ["--tokenizer", str(data_folder), "--val-fraction", "0.3", "--split", "hash"]
    assert cli.main(["prep", str(text), "-o", str(other), *prepared]) == 0
    mixed, run = tmp_path / "mixed", tmp_path / "run"
    assert cli.main(["mix", str(data_folder), str(other), "-o", str(mixed)]) == 0
    assert cli.main(["train", str(mixed), "-o", str(run), *TRAINED]) == 0
    capsys.readouterr()

    def scores(*options: str) -> dict[str, Any]:
        assert cli.main(["eval", str(run), "--no-floors", "--json", *options]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    whole = scores()
    for folder in (data_folder, other):
        alone, part = scores("--data", str(folder)), whole["sources"][folder.name]
        assert (part["num_bytes"], part["num_tokens"]) == (alone["num_bytes"], alone["num_tokens"])
        assert part["bits_per_byte"] == pytest.approx(alone["bits_per_byte"], rel=1e-2)  # its windows begin elsewhere
    bits = sum(part["bits_per_byte"] * part["num_bytes"] for part in whole["sources"].values())
    assert whole["bits_per_byte"] == pytest.approx(bits / whole["num_bytes"])


@pytest.mark.parametrize("task", ["code_suite", "multiple_choice"])
def test_each_metric_stands_beside_its_highest_floor(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    path = tmp_path / "choices.jsonl"
    path.write_text(json.dumps({"question": "q", "choices": ["a", "b"], "answer": 1}) + "\n")
    capsys.readouterr()
    assert cli.main(["eval", str(run), "--task", f"{task}={path}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    name, floor = {"code_suite": ("generation", 5 / 6), "multiple_choice": ("acc", 0.5)}[task]
    (line,) = (line for line in lines if line.startswith(f"  {name} "))
    assert float(line.rsplit("highest floor ")[1]) >= round(floor, 3)


def test_questions_that_the_context_cannot_hold(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"question": words(1, 400), "choices": ["a", "b", "c"], "answer": 1}) + "\n")
    assert cli.main(["eval", str(run), "--task", f"multiple_choice={path}", "--no-floors"]) == 0
    out = capsys.readouterr().out
    assert "multiple_choice: 1 question to" in out
    assert "  1 texts are longer than the model's context of 64 tokens, and were cut\n" in out
    assert cli.main(["eval", str(run), "--context", "65"]) == 2
    assert "--context is 2 to 64, which this model was made for" in capsys.readouterr().err


@pytest.mark.skipif(protection_here() == "limits", reason="this machine cannot protect itself")
def test_code_that_never_ends_or_prints_forever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = "def check(candidate):\n    assert candidate(1) == 2\n"
    problem = {"task_id": "T/0", "prompt": "def f(x):\n", "entry_point": "f", "test": test}
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    answers = ["    while True: pass\n", "    while True: print('x' * 1000)\n", "    return x + 1\n"]
    rows = [json.dumps({"task_id": "T/0", "completion": text}) + "\n" for text in answers]
    (tmp_path / "answers.jsonl").write_text("".join(rows))
    given = ["--completions", str(tmp_path / "answers.jsonl"), "--no-floors"]
    assert cli.main(["eval", "--task", f"humaneval={tmp_path / 'problems.jsonl'}", *given]) == 0
    out = capsys.readouterr().out
    assert "pass@1             0.333\n" in out
    assert "parses             1.000" in out


def test_ctrl_c_leaves_nothing_half_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    scored = perplexity._token_nats

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return scored(*given)

    monkeypatch.setattr(perplexity, "_token_nats", interrupted)
    capsys.readouterr()
    assert cli.main(["eval", str(run)]) == 130
    found = capsys.readouterr()
    assert (found.out, found.err.splitlines()[-1]) == ("", "inkling: stopped")
    assert "Traceback" not in found.err
    assert sorted(run.rglob("*")) == before
