"""What a plan tells: memory against what torch allocates, choices under limits, and the law's arithmetic."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inkling import machine, models, optim
from inkling.cli import main
from inkling.config import parse_bytes
from inkling.optim._groups import parameter_groups
from inkling.train.forecast import format_duration
from inkling.train.memory import memory_of, moment_bytes
from inkling.train.scaling import LAW, expected, worth

OPTIONS = [
    "--size",
    "0.8m",
    "--context",
    "32",
    "--batch-size",
    "4",
    "--machine.threads",
    "1",
    "--machine.attention",
    "sdpa",
]
OPTIONS += [
    "--machine.precision",
    "fp32",
    "--machine.compile",
    "no",
    "--machine.micro_batch",
    "4",
    "--log.eval_tokens",
    "256",
]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_what_is_held_still_has_no_moments(optimizer: str) -> None:
    architecture = models.load("qwen3")
    values = {**architecture.SIZES["0.8m"], "model_type": "qwen3", "tie_word_embeddings": False}
    model = architecture.Model(architecture.Config.from_dict(values))
    model.init_weights(torch.Generator().manual_seed(0))
    model.model.layers[0].requires_grad_(requires_grad=False)
    module = optim.load(optimizer)
    trained = module.build(parameter_groups(model), module.Config())
    model(torch.arange(32).view(2, 16)).sum().backward()
    trained.step()
    states = [value for state in trained.state.values() for value in state.values() if value.ndim]
    assert moment_bytes(model, optimizer) == sum(value.nbytes for value in states)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_weights_gradients_and_moments_are_those_that_training_allocates(optimizer: str) -> None:
    architecture = models.load("qwen3")
    config = architecture.Config.from_dict({**architecture.SIZES["0.8m"], "model_type": "qwen3"})
    model = architecture.Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    module = optim.load(optimizer)
    trained = module.build(parameter_groups(model), module.Config())
    input_ids = torch.randint(0, config.vocab_size, (2, 16))
    nn.functional.cross_entropy(model(input_ids).flatten(0, 1), input_ids.flatten()).backward()
    trained.step()
    memory = memory_of(config, tokens=32, optimizer=optimizer)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    states = [value for state in trained.state.values() for value in state.values() if value.ndim]
    assert memory.optimizer == sum(value.nbytes for value in states)
    smaller = memory_of(config, tokens=32, optimizer=optimizer, recompute=True)
    assert smaller.activations < memory.activations / 3
    assert memory_of(config, tokens=64, optimizer=optimizer).activations == 2 * memory.activations


def test_repeated_text_is_worth_less_and_less() -> None:
    assert worth(5.0, 10.0, 15.0) == 5.0
    assert worth(10.0, 10.0, 15.0) == 10.0
    assert 10 < worth(20.0, 10.0, 15.0) < 20
    assert worth(1e9, 10.0, 15.0) == pytest.approx(10 * (1 + 15))


def test_the_law_falls_with_text_and_earlier_runs_correct_it() -> None:
    known: dict[str, Any] = {"block_parameters": 3e6, "text_tokens": 1e9, "bytes_per_token": 4.0, "ngram": 2.0}
    losses = [expected(tokens=tokens, **known).bits_per_byte for tokens in (1e6, 1e7, 1e8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > LAW.level * 2.0
    plain = expected(tokens=1e7, **known)
    corrected = expected(tokens=1e7, ratios=[1.1, 1.1 * 0.9, 1.1 / 0.9], **known)
    assert corrected.by_law == plain.bits_per_byte
    assert corrected.bits_per_byte == pytest.approx(1.1 * plain.bits_per_byte)
    assert corrected.error < plain.error


def test_a_plan_writes_nothing_and_a_run_keeps_it(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [str(data_folder), *OPTIONS, "--steps", "20", "--json"]
    assert main(["plan", *command]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []
    assert plan["steps"] == 20
    assert plan["tokens"] == 20 * 4 * 32
    assert plan["seconds"] > 20 * plan["seconds_per_step"]
    assert 0 < plan["optimizer_share"] < 1
    assert plan["bits_per_byte"] > 0
    assert main(["train", *command, "--out", "runs/one"]) == 0
    result = json.loads(capsys.readouterr().out)
    kept = json.loads(Path("runs/one/run.json").read_text())["choices"]["forecast"]
    assert kept["memory"] == plan["memory"]
    assert kept["by_law"] == plan["bits_per_byte"]
    assert main(["plan", *command, "--out", "runs/two"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["bits_per_byte"] == pytest.approx(result["validation"]["val_bits_per_byte"])


@pytest.mark.parametrize(("memory", "size"), [("2GB", "3m"), ("100MB", "3m"), ("35MB", "0.8m")])
def test_the_size_fits_into_the_memory_given(
    data_folder: Path, capsys: pytest.CaptureFixture[str], memory: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inkling.train import defaults

    monkeypatch.setattr(defaults, "_SIZE_BY_TOKENS", [(math.inf, "3m")])
    options = [*OPTIONS[2:], "--steps", "4", "--memory", memory]
    assert main(["plan", str(data_folder), *options]) == 0
    shown = capsys.readouterr()
    assert f"1. size {size}" in shown.err


def test_what_cannot_fit_is_refused_in_one_line(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(data_folder), "--size", "1b", "--memory", "1GB", "--steps", "4"]) == 2
    assert "size 1b needs" in capsys.readouterr().err
    assert main(["train", str(data_folder), "--memory", "1MB", "--steps", "4"]) == 2
    assert "no size of qwen3 fits into 0.00 GB" in capsys.readouterr().err
    assert main(["train", str(data_folder), "--memory", "much"]) == 2
    assert "not an amount of memory" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["plan"], ["train", "--find-lr"]])
def test_only_a_new_run_of_one_process_is_planned(
    verb: list[str], data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb, "--resume"]) == 2
    assert "give a data folder" in capsys.readouterr().err
    assert main([*verb, str(data_folder), "--devices", "2"]) == 2
    assert "one process is timed here" in capsys.readouterr().err


def test_amounts_of_memory_and_time() -> None:
    assert [parse_bytes(text) for text in ("800MB", "8gb", "1.5 GiB", "12", "3k")] == [
        800_000_000,
        8_000_000_000,
        1_500_000_000,
        12,
        3000,
    ]
    assert parse_bytes(5) == 5
    assert [format_duration(seconds) for seconds in (12, 120, 7200)] == ["12 s", "2 min", "2.0 h"]


def test_with_time_the_best_expected_size_is_taken(data_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(data_folder), *OPTIONS[2:], "--time", "2s"]) == 0
    line = capsys.readouterr().err
    assert "the lowest loss to expect after 2 s" in line


def test_another_program_is_heard() -> None:
    heard = machine.others_busy()
    subprocess.run(
        [sys.executable, "-c", "import time; t = time.time()\nwhile time.time() < t + 0.6: pass"], check=True
    )
    assert heard() > 0.4
