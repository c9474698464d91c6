"""Switches that must change speed or records, and no number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import losses, settings, train

from inkling import checkpoint, models
from inkling.cli import main
from inkling.commands.train import Settings, start_or_resume
from inkling.progress import LiveProgress
from inkling.train.launch import PretrainingRun
from inkling.train.recompute import recompute_blocks


def test_recomputing_activations_gives_the_same_gradients() -> None:
    architecture = models.load("qwen3")
    shape = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = architecture.Config.from_dict({**shape, "intermediate_size": 48, "max_position_embeddings": 16})
    ids = torch.randint(0, 20, (2, 12))
    gradients = []
    for wrap in (lambda model: model, recompute_blocks):
        model = wrap(architecture.Model(config, dropout=0.2)).train()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        torch.manual_seed(5)
        model(ids).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near_fp32(precision: str, data_folder: Path, tmp_path: Path) -> None:
    machine = {"compile": "no", "threads": 1, "attention": "sdpa", "micro_batch": 4}
    exact = train(settings(data_folder, tmp_path / "fp32", steps=8, machine={**machine, "precision": "fp32"}))
    rough = train(settings(data_folder, tmp_path / "low", steps=8, machine={**machine, "precision": precision}))
    assert losses(rough) != losses(exact)
    for step, loss in losses(exact).items():
        assert losses(rough)[step] == pytest.approx(loss, abs=0.05)


def test_tensorboard_events_hold_the_losses(data_folder: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(settings(data_folder, tmp_path / "run", steps=4, log={"samples": False}))
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == pytest.approx(losses(run), rel=1e-6)


def test_micro_batches_change_the_sum_only_in_its_last_digits(data_folder: Path, tmp_path: Path) -> None:
    machine = {"precision": "fp32", "compile": "no", "threads": 1, "attention": "sdpa"}
    without_dropout = {"model": {"hidden_size": 32, "num_hidden_layers": 1, "dropout": 0.0}}
    runs = [
        train(settings(data_folder, tmp_path / str(size), machine={**machine, "micro_batch": size}, **without_dropout))
        for size in (1, 4)
    ]
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), abs=1e-4)


def test_stopped_in_the_last_evaluation_a_run_is_not_finished(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Any, session: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PretrainingRun, "_finish", stop)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(settings(data_folder, out, steps=2))
    assert checkpoint.read_run(out).status == "interrupted"
    monkeypatch.undo()
    with LiveProgress(quiet=True) as progress:
        _, record = start_or_resume(Settings(out=out, resume=True), progress)
    assert record.status == "finished"
    assert record.results["steps"] == 2
    assert record.results["validation"]["val_bits_per_byte"] > 0


def test_nothing_is_overwritten_by_a_run_of_the_same_name(data_folder: Path, tmp_path: Path) -> None:
    first = train(settings(data_folder, tmp_path / "run", steps=1))
    before = (first / "run.json").read_bytes()
    second = train(settings(data_folder, tmp_path / "run", steps=1))
    assert second == tmp_path / "run-2"
    assert (first / "run.json").read_bytes() == before


def test_an_interrupted_run_is_pointed_out_when_nobody_can_be_asked(data_folder: Path, tmp_path: Path) -> None:
    from inkling.errors import ConfigError

    run = train(settings(data_folder, tmp_path / "run", steps=1))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    with pytest.raises(ConfigError, match=r"is an interrupted run .*--resume to go on, or --no-resume"):
        train(settings(data_folder, tmp_path / "run", steps=1))


def test_a_mixture_is_scored_by_source_while_it_is_trained(
    text_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prep = ["prep", str(text_folder), "--vocab-size", "300", "--level", "bpe"]
    for name in ("a", "b"):
        assert main([*prep, "-o", str(tmp_path / name)]) == 0
    assert main(["mix", f"{tmp_path}/a=0.7", f"{tmp_path}/b=0.3", "-o", str(tmp_path / "both")]) == 0
    run = train(settings(tmp_path / "both", tmp_path / "run", steps=4))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in rows if "val_bits_per_byte" in row]
    assert len(scored) == 2
    for row in scored:
        assert row["val_bits_per_byte/a"] == row["val_bits_per_byte/b"] > 0  # the same text in both
    columns = (run / "metrics.csv").read_text().splitlines()
    assert columns[0].startswith("step,loss,")
    assert len(columns) == 1 + len(rows)


def test_the_share_of_the_peak_is_speed_times_operations(data_folder: Path, tmp_path: Path) -> None:
    run = train(settings(data_folder, tmp_path / "run", steps=4))
    choices = json.loads((run / "run.json").read_text())["choices"]
    config = models.load("qwen3").Config.from_dict(choices["model_config"])
    flops = models.cost(models.without_memory(config)).training_flops
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "gflops" in row:
            assert row["gflops"] == pytest.approx(row["tokens_per_s"] * flops / 1e9)
            assert row["peak_share"] == pytest.approx(1e9 * row["gflops"] / choices["peak_flops"])
            assert 0 < row["peak_share"] < 1


def test_a_run_of_another_version_is_refused_in_one_line(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(settings(data_folder, tmp_path / "run", steps=4))
    record = json.loads((run / "run.json").read_text())
    record["settings"]["log"]["colour"] = "blue"
    (run / "run.json").write_text(json.dumps(record))
    assert main(["train", "--resume", "--out", str(run), "--steps", "8"]) == 1
    assert "does not know: log.colour" in capsys.readouterr().err
