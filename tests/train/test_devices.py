"""Several processes train the model that one trains: the same batch, the same losses, the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.tokenizer import Tokenizer
from inkling.train.world import ALONE, World, join

OPTIONS = [
    *("--size", "0.8m", "--context", "32", "--batch-size", "4", "--steps", "6", "--machine.precision", "fp32"),
    *(
        "--machine.compile",
        "no",
        "--machine.threads",
        "1",
        "--machine.attention",
        "sdpa",
        "--machine.micro_batch",
        "2",
        "--model.dropout",
        "0",
    ),
    *("--model.hidden_size", "32", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
    *("--model.head_dim", "16", "--model.intermediate_size", "64", "--loop.eval_every", "3", "--loop.log_every", "1"),
    *("--no-log.samples", "--log.eval_tokens", "512", "--json"),
]


def train(data: Path, out: Path, *more: str, command: tuple[str, ...] = ("-m", "inkling")) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *command, "train", str(data), "--out", str(out), "--no-resume", *OPTIONS, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def losses(run: Path, key: str = "loss") -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


@pytest.mark.timeout(120)
def test_two_processes_train_the_model_of_one(data_folder: Path, tmp_path: Path) -> None:
    one, two, torchrun = (tmp_path / name for name in ("one", "two", "torchrun"))
    alone = train(data_folder, one)
    together = train(data_folder, two, "--devices", "2")
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "inkling")
    train(data_folder, torchrun, command=command)
    for run in (two, torchrun):
        np.testing.assert_allclose(losses(run), losses(one), rtol=1e-5)
        np.testing.assert_allclose(losses(run, "val_loss"), losses(one, "val_loss"), rtol=1e-5)
        weights, wanted = load_file(run / "model.safetensors"), load_file(one / "model.safetensors")
        for name, tensor in wanted.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)
    assert len(losses(one)) == 6
    assert together["validation"]["val_loss"] == pytest.approx(alone["validation"]["val_loss"], rel=1e-5)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_two_processes_tune_the_model_of_one(small_tokenizer: Tokenizer, tmp_path: Path, method: str) -> None:
    base = random_checkpoint(
        tmp_path / "base", {"model_type": "qwen3", **SMALL_SHAPE, "max_position_embeddings": 64}, small_tokenizer
    )
    rows = [{"prompt": f"the cat {n}", "chosen": "sat on a mat", "rejected": "fell"} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.py").write_text(
        "def reward(prompts, completions):\n    return [len(set(x)) for x in completions]\n"
    )
    options = ["--method", method, "--steps", "4", "--batch-size", "4", "--lr", "1e-3", "--loop.eval-every", "2"]
    options += [
        "--machine.precision",
        "fp32",
        "--machine.threads",
        "1",
        "--machine.attention",
        "sdpa",
        "--loop.log-every",
        "1",
        "--no-log.samples",
    ]
    if method == "grpo":
        options += ["--rl.rewards", str(tmp_path / "own.py"), "--rl.max-tokens", "8", "--rl.group-size", "3"]
        options += ["--rl.kl", "0.1", "--rl.kl-target", "0.01", "--rl.accept-hackable"]
    command = [sys.executable, "-m", "inkling", "tune", str(base), str(tmp_path / "rows.jsonl"), *options]
    for count in ("1", "2"):
        out = ["--out", str(tmp_path / count), "--devices", count]
        subprocess.run([*command, *out], check=True, capture_output=True)
    one, two = tmp_path / "1", tmp_path / "2"
    for key in ("loss", "reward", "divergence") if method == "grpo" else ("loss", "val_loss", "margin"):
        assert len(losses(one, key)) >= 3
        np.testing.assert_allclose(losses(two, key), losses(one, key), rtol=1e-4, atol=1e-6)
    weights, wanted = load_file(two / "model.safetensors"), load_file(one / "model.safetensors")
    for name, tensor in wanted.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(120)
def test_ctrl_c_saves_once_and_two_processes_go_on(data_folder: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    length = ["--steps", "80", "--schedule.name", "constant", "--loop.eval_every", "40"]
    command = [sys.executable, "-m", "inkling", "train", str(data_folder), *OPTIONS, *length, "--devices", "2"]
    process = subprocess.Popen([*command, "--out", str(run)], stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len(losses(run)) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    record = checkpoint.read_run(run)
    assert record.status == "interrupted"
    assert 5 <= record.results["steps"] < 80
    for out, more in ((run, "--resume"), (whole, "--no-resume")):
        subprocess.run([*command, "--out", str(out), more], check=True, capture_output=True)
    assert losses(run) == losses(whole)


def test_one_process_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.ones(3)
    ALONE.sum_([tensor])
    ALONE.wait()
    assert tensor.tolist() == [1, 1, 1]
    assert ALONE.largest(2.0, True) == [2.0, 1.0]
    assert ALONE.from_main({"a": [1]}) == {"a": [1]}
    assert join("cpu") == ALONE
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join("cpu") == World()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--devices", "4000"], "--devices 4000 needs as many cores"),
        (
            ["--devices", "2", "--batch-size", "3", "--machine.micro_batch", "1"],
            "on 2 devices must divide the batch of 3",
        ),
    ],
)
@pytest.mark.timeout(60)
def test_what_cannot_be_shared_is_refused(data_folder: Path, tmp_path: Path, more: list[str], words: str) -> None:
    command = [sys.executable, "-m", "inkling", "train", str(data_folder), *OPTIONS, "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Error" not in done.stderr
    assert not (tmp_path / "run").exists()
