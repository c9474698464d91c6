"""Quantized runs: they load as they were saved, evaluate, generate, and cost what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import random_checkpoint
from inkling import checkpoint, cli, models
from inkling.quantize import Quantization, default_formats, quantize_model, weight_bytes
from inkling.quantize.budget import best_mix, quantized_bytes
from inkling.tokenizer import Tokenizer

ARGUMENTS = ["--size", "0.8m", "--context", "32", "--batch-size", "8", "--steps", "40", "--model.hidden_size", "64"]
ARGUMENTS += [
    "--model.num_hidden_layers",
    "2",
    "--machine.threads",
    "1",
    "--machine.precision",
    "fp32",
    "--no-log.samples",
]


@pytest.fixture(scope="module")
def run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    assert cli.main(["train", str(data_folder), "-o", str(path), *ARGUMENTS]) == 0
    return path


def quantize(run: Path, out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["quantize", str(run), *arguments, "-o", str(out), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize(
    ("arguments", "worse", "smaller"),
    [(["int8"], 0.002, 3.5), (["int4"], 0.05, 4.5), (["int4", "--method", "rtn", "--group-size", "64"], 0.08, 4.8)],
    ids=["int8", "gptq", "rtn"],
)
def test_what_it_costs(
    arguments: list[str], worse: float, smaller: float, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = quantize(run, tmp_path / "out", capsys, *arguments)
    before, after = result["before"], result["after"]
    assert before["bytes"] > smaller * after["bytes"]
    assert before["divergence"] == pytest.approx(0, abs=1e-6)
    assert 0 < after["divergence"] < worse
    assert after["bits_per_byte"] < (1 + worse) * before["bits_per_byte"]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) == after["bytes"]
    for run_again in (run, tmp_path / "out"):
        assert cli.main(["eval", str(run_again), "--json", "--no-floors"]) == 0
    scores = [json.loads(line)["bits_per_byte"] for line in capsys.readouterr().out.splitlines()]
    assert scores == pytest.approx([before["bits_per_byte"], after["bits_per_byte"]], rel=1e-3)
    assert cli.main(["generate", str(tmp_path / "out"), "--prompt", "the cat", "-n", "8", "--seed", "1"]) == 0


@pytest.mark.parametrize("model_type", models.names())
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_every_architecture_comes_back_as_it_was_saved(
    model_type: str, kind: str, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = random_checkpoint(tmp_path / "run", {"model_type": model_type}, small_tokenizer)
    model, tokenizer = checkpoint.load_model(source)
    ids = torch.randint(0, tokenizer.vocab_size, (2, 24), generator=torch.Generator().manual_seed(0))
    before, has_experts = model(ids).log_softmax(-1), model.idle_parameters() > 0
    quantization = Quantization(default_formats(model, kind, 32), 32)
    assert set(quantization.formats.values()) == {kind, "int8"}
    wanted_bytes = quantized_bytes(model, quantization.formats, 32)
    quantize_model(model, quantization)
    assert weight_bytes(model) == wanted_bytes
    with torch.inference_mode():
        wanted = model(ids)
        allowed = {"int8": 0.02, "int4": 0.25}[kind] * (3 if has_experts else 1)  # some tokens go elsewhere
        assert (wanted.log_softmax(-1) - before).abs().mean() < allowed
        checkpoint.save_model(tmp_path / "out", model, tokenizer, quantization=quantization)
        again, _ = checkpoint.load_model(tmp_path / "out")
        assert torch.equal(again(ids), wanted)
        cache = models.KVCache(again.config, 2, 24)
        cached = torch.cat([again(part, cache=cache) for part in ids.split([10, *[1] * 14], dim=1)], dim=1)
    rounding = 0.06 if has_experts else 0.02  # bf16 products of other lengths
    assert (cached.log_softmax(-1) - wanted.log_softmax(-1)).abs().mean() < rounding


def test_a_budget_is_kept_and_used(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = quantize(run, tmp_path / "small", capsys, "int4", "--method", "rtn")
    large = quantize(run, tmp_path / "large", capsys, "int8")
    budget = (small["after"]["bytes"] + large["after"]["bytes"]) // 2
    mixed = quantize(run, tmp_path / "mixed", capsys, "int4", "--method", "rtn", "--budget", f"{budget}")
    assert small["after"]["bytes"] < mixed["after"]["bytes"] <= budget
    assert mixed["after"]["divergence"] < small["after"]["divergence"]
    assert mixed["matrices"]["int4"] > 0
    assert mixed["matrices"]["int8"] > small["matrices"]["int8"]
    assert cli.main(["quantize", str(run), "int4", "--budget", "1kB", "-o", str(tmp_path / "none")]) == 2
    assert "4 bits everywhere take" in capsys.readouterr().err


def test_the_mix_spends_where_it_gains_most(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, _ = checkpoint.load_model(random_checkpoint(tmp_path / "run", {"model_type": "llama"}, small_tokenizer))
    formats = default_formats(model, "int4", 32)
    names = [name for name, kind in formats.items() if kind == "int4" and name.endswith(("q_proj", "o_proj"))]
    damage = {name: float(number + 1) for number, name in enumerate(names)}
    extra = 64 * 64 + 2 * 64 - (64 * 64 // 2 + 4 * 64 * 64 // 32)
    budget = quantized_bytes(model, formats, 32) + 2 * extra + 5
    found = best_mix(model, formats, damage, 32, budget)
    assert [name for name in names if found[name] == "int8"] == names[-2:]


def test_what_cannot_be_done_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "q8"
    quantize(run, out, capsys, "int8")
    for arguments, what, status in [
        (["quantize", str(out), "int4", "-o", str(tmp_path / "x")], "quantized already", 1),
        (["quantize", str(run), "int4", "--group-size", "48", "-o", str(tmp_path / "x")], "32, 64, 128, 256", 2),
        (["quantize", str(run), "int8", "--budget", "1MB", "-o", str(tmp_path / "x")], "are for int4", 2),
        (["quantize", str(run), "int8", "-o", str(out)], "is there already", 1),
        (["export", str(out), "gguf", "-o", str(tmp_path / "x")], "export the run that it was made from", 1),
        (["train", "nothing", "--start-from", str(out), "-o", str(tmp_path / "x")], "is quantized", 2),
    ]:
        assert cli.main(arguments) == status
        assert what in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "changes",
    [{"quant_method": "gptq"}, {"version": 9}, {"group_size": 0}, {"formats": {"model.norm": "int8"}}, {"formats": 3}],
    ids=str,
)
def test_a_foreign_or_damaged_description_is_refused(
    changes: dict[str, Any], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize(run, tmp_path / "q8", capsys, "int8")
    path = tmp_path / "q8" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= changes
    path.write_text(json.dumps(config))
    assert cli.main(["generate", str(tmp_path / "q8"), "--prompt", "a"]) == 1
    assert "cannot run" in capsys.readouterr().err


def test_a_run_that_learned_with_the_rounding_loses_less(
    run: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [
        "train",
        str(data_folder),
        "--start-from",
        str(run),
        "--context",
        "32",
        "--batch-size",
        "8",
        "--steps",
        "30",
    ]
    more += [
        "--machine.threads",
        "1",
        "--machine.attention",
        "sdpa",
        "--machine.precision",
        "fp32",
        "--no-log.samples",
        "--schedule.peak",
        "0.3",
    ]
    assert cli.main([*more, "-o", str(tmp_path / "qat"), "--qat", "int4"]) == 0
    assert cli.main([*more, "-o", str(tmp_path / "plain")]) == 0
    aware = quantize(tmp_path / "qat", tmp_path / "qat4", capsys, "int4")
    plain = quantize(tmp_path / "plain", tmp_path / "plain4", capsys, "int4", "--method", "range")
    assert aware["method"] == "range"
    assert aware["after"]["bits_per_byte"] < plain["after"]["bits_per_byte"]
    assert checkpoint.read_run(tmp_path / "qat").results["validation"]["val_bits_per_byte"] == pytest.approx(
        aware["after"]["bits_per_byte"], rel=2e-3
    )
