"""`inkling tune` from settings to a run: each method learns, and a resumed run equals the uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, peft, rewards
from inkling.commands import sample as sample_command
from inkling.commands import tune as tune_command
from inkling.commands.tune import tell, tune
from inkling.errors import CheckpointError, ConfigError, DataError, TrainingError
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.progress import LiveProgress
from inkling.report.facts import facts_of
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import CHATML, chat_ids
from inkling.train.tune import TuningRun
from inkling.train.tune_settings import TuneSettings

ANSWERS = {"cat": "mat", "mat": "rain", "rain": "cat"}
STEPS = 6


def rows(kind: str) -> list[dict[str, Any]]:
    """Words and what belongs to them, in different words."""
    found: list[dict[str, Any]] = []
    for number in range(30):
        word, answer = list(ANSWERS.items())[number % 3]
        prompt = f"{'the ' * (number % 4)}{word} {number}"
        if kind == "conversations":
            found.append({"prompt": prompt, "completion": answer, "answer": answer})
        elif kind == "preferences":
            found.append({"prompt": prompt, "chosen": answer, "rejected": f"{word} the", "answer": answer})
        elif kind == "feedback":
            found.append({"prompt": prompt, "completion": answer if number % 2 else "the", "label": number % 2 == 1})
        else:
            found.append({"prompt": prompt, "answer": answer})
    return found


KINDS = {
    "sft": "conversations",
    "dpo": "preferences",
    "orpo": "preferences",
    "simpo": "preferences",
    "kto": "feedback",
    "grpo": "prompts",
    "rloo": "prompts",
    "ppo": "prompts",
    "reward": "preferences",
    "distill": "conversations",
}


@pytest.fixture(scope="module")
def parent(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, and rows of each kind beside it."""
    folder = tmp_path_factory.mktemp("parent")
    values = {"model_type": "qwen3", **SMALL_SHAPE, "max_position_embeddings": 96}
    random_checkpoint(folder / "base", values, small_tokenizer, spread=0.05)
    for kind in set(KINDS.values()):
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(kind)))
    (folder / "own.py").write_text(
        "def short(prompts, completions):\n    return [1 / (1 + len(one)) for one in completions]\n"
        "def broken(prompts, completions):\n    return [float('nan')] * len(completions)\n"
        "def generous(prompts, completions):\n    return [1.0] * len(completions)\n"
    )
    return folder / "base"


def settings(parent: Path, out: Path, method: str, **more: Any) -> TuneSettings:
    values: dict[str, Any] = {
        "start_from": parent,
        "data": parent.parent / f"{KINDS[method]}.jsonl",
        "out": out,
        "method": method,
        "steps": STEPS,
        "batch_size": 4,
        "lr": 3e-3,
        "val_fraction": 0.2,
        "machine": {"precision": "fp32", "threads": 1, "attention": "sdpa"},
        "loop": {"eval_every": 3, "log_every": 1},
        "checkpoint": {"every": 2},
        "log": {"samples": False},
        "schedule": {"name": "constant", "warmup_steps": 0},
    }
    if method == "distill":
        values["distill"] = {"teacher": parent}
    if KINDS[method] == "prompts":
        rewards = [f"{parent.parent / 'own.py'}:short"]
        values["rl"] = {"rewards": rewards, "group_size": 3, "max_tokens": 8, "accept_hackable": True}
    for name, value in more.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) and name in values else value
    return TuneSettings.model_validate(values)


def work(given: TuneSettings) -> Path:
    with LiveProgress(quiet=True) as progress:
        return tune(given, progress)[0]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_sft_learns_and_the_run_is_like_any_other(parent: Path, tmp_path: Path) -> None:
    run = work(settings(parent, tmp_path / "run", "sft", steps=60, rl={"rewards": ["exact_answer"], "max_tokens": 8}))
    record = checkpoint.read_run(run)
    assert record.status == "finished"
    start, end = record.results["start"], record.results["validation"]
    assert start["val_reward"] == 0
    assert end["val_reward"] == 1
    assert end["val_loss"] < 0.3 * start["val_loss"]
    assert end["val_bits_per_byte"] < 1
    as_good = [row for row in metrics(run) if row.get("val_reward") == 1]
    assert len(as_good) > 1
    assert record.results["best_step"] == min(as_good, key=lambda row: row["val_loss"])["step"]
    model, tokenizer = checkpoint.load_model(run)
    assert tokenizer.chat_template == CHATML
    ids = chat_ids(tokenizer, [{"role": "user", "content": "the rain 99"}])
    assert "".join(generate(model, tokenizer, ids, SamplingParams(temperature=0.0, max_tokens=8))) == "cat"
    assert record.data["start_from"] == str(parent.resolve())
    assert facts_of(run)["status"] == "finished"
    assert (run / "loss.png").stat().st_size > 1000


@pytest.mark.parametrize("method", ["dpo", "orpo", "simpo", "kto"])
def test_preferences_are_learnt(parent: Path, tmp_path: Path, method: str) -> None:
    run = work(settings(parent, tmp_path / "run", method, steps=25))
    results = checkpoint.read_run(run).results
    start, end = results["start"], results["validation"]
    assert end["val_loss"] < start["val_loss"]
    assert start["val_kl"] == 0
    assert end["val_kl"] > 0.1
    if method == "kto":
        assert end["val_good_gain"] > 1 > -1 > end["val_bad_gain"]
    else:
        assert end["val_accuracy"] == 1
        assert end["val_margin"] > start["val_margin"]
        assert end["val_chosen_nats"] < start["val_chosen_nats"]


def test_displacement_is_said(parent: Path, tmp_path: Path) -> None:
    naive = {"sft_weight": 0.0, "beta": 0.05}
    run = work(settings(parent, tmp_path / "run", "dpo", steps=30, lr=1e-2, preference=naive))
    results = checkpoint.read_run(run).results
    rows_of_evaluations = [row for row in metrics(run) if "val_chosen_gain" in row]
    assert min(row["val_chosen_gain"] for row in rows_of_evaluations) < -1
    assert any("less likely than at the start" in warning for warning in results["warnings"])
    assert "less likely" in (run / "training.log").read_text()


def test_a_run_that_only_became_worse_says_so(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = work(settings(parent, tmp_path / "run", "sft", steps=2, lr=1.0))
    tell(run, checkpoint.read_run(run))
    assert "these are the weights that it began with" in capsys.readouterr().out
    before, after = (checkpoint.load_model(folder)[0].state_dict() for folder in (parent, run))
    assert all(torch.equal(after[name], weights) for name, weights in before.items())


@pytest.mark.parametrize("method", ["grpo", "rloo", "ppo"])
def test_rewards_are_learnt_from(parent: Path, tmp_path: Path, method: str) -> None:
    given = settings(parent, tmp_path / "run", method, steps=25, lr=1e-2, rl={"group_size": 6})
    run = work(given)
    steps = [row for row in metrics(run) if "reward" in row]
    first, last = steps[:5], steps[-5:]
    assert sum(row["length"] for row in last) < 0.6 * sum(row["length"] for row in first)
    assert sum(row["reward"] for row in last) > 1.5 * sum(row["reward"] for row in first)
    assert {"no_signal", "truncated", "entropy"} <= steps[0].keys()
    assert not any("value_head" in name for name in load_file(run / "model.safetensors"))


def test_a_reward_model_rewards_what_was_preferred(parent: Path, tmp_path: Path) -> None:
    run = work(settings(parent, tmp_path / "run", "reward", steps=25, lr=1e-3))
    results = checkpoint.read_run(run).results
    assert results["validation"]["val_accuracy"] == 1
    assert abs(results["validation"]["val_mean_reward"]) < 2
    judge = rewards.load(str(run))
    pairs = [row for row in rows("preferences") if row["prompt"].endswith(("1", "2"))]
    prompts = [row["prompt"] for row in pairs]
    good = judge(prompts, [row["chosen"] for row in pairs], pairs)
    bad = judge(prompts, [row["rejected"] for row in pairs], pairs)
    assert all(one > other for one, other in zip(good, bad, strict=True))
    assert good == pytest.approx(
        [judge([p], [row["chosen"]], [row])[0] for p, row in zip(prompts, pairs, strict=True)], abs=1e-4
    )
    with pytest.raises(ConfigError, match="no reward model"):
        rewards.load(str(parent))


@pytest.mark.parametrize("logits", ["live", "stored"])
def test_a_student_comes_near_its_teacher(
    parent: Path, tmp_path: Path, logits: str, small_tokenizer: Tokenizer
) -> None:
    teacher = work(settings(parent, tmp_path / "teacher", "sft", steps=20))
    values = {"model_type": "llama", **SMALL_SHAPE, "hidden_size": 32, "max_position_embeddings": 96}
    student = random_checkpoint(tmp_path / "student", values, small_tokenizer, spread=0.05)
    more = {"start_from": student, "distill": {"teacher": teacher, "logits": logits, "top_k": 8}}
    run = work(settings(parent, tmp_path / "run", "distill", steps=40, lr=1e-2, **more))
    results = checkpoint.read_run(run).results
    assert results["validation"]["val_divergence"] < 0.3 * results["start"]["val_divergence"]
    assert (run / "teacher.safetensors").is_file() == (logits == "stored")


# ---------------------------------------------------------------- exactness

WAYS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft", "average": {"decay": 0.9}},
    "sft-muon": {"method": "sft", "optimizer": "muon", "lr": None},
    "sft-lora": {"method": "sft", "adapter": "lora", "lora": {"rank": 4, "dropout": 0.1}},
    "dpo": {"method": "dpo"},
    "dpo-adapter-off": {"method": "dpo", "adapter": "lora", "preference": {"reference": "adapter-off"}},
    "kto": {"method": "kto", "packing": "yes"},
    "grpo": {"method": "grpo", "rl": {"kl": 0.1, "kl_target": 0.01}},
    "grpo-updates": {"method": "grpo", "rl": {"updates": 4}},
    "distill-stored": {"method": "distill", "distill": {"logits": "stored"}},
    "reward": {"method": "reward"},
    "ppo-lora": {"method": "ppo", "adapter": "lora", "rl": {"updates": 2, "kl": 0.1}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_equals_the_uninterrupted_one(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    from inkling.train.session import Session

    shown = Session._on_step
    whole = work(settings(parent, tmp_path / "whole", **WAYS[way]))

    def stop_after(self: Session, report: Any) -> None:
        shown(self, report)
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Session, "_on_step", stop_after)
    run = work(settings(parent, tmp_path / "run", **WAYS[way]))
    assert checkpoint.read_run(run).status == "interrupted"
    monkeypatch.setattr(Session, "_on_step", shown)
    assert work(TuneSettings(out=run, resume=True)) == run
    timed = ("tokens_per_s", "gflops", "peak_share", "memory_mb", "elapsed_s")
    mine, theirs = ([{k: v for k, v in row.items() if k not in timed} for row in metrics(one)] for one in (run, whole))
    assert mine == theirs
    for name in ("model.safetensors", f"checkpoints/step-{STEPS:06d}/model.safetensors"):
        ours, expected = load_file(run / name), load_file(whole / name)
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[key], expected[key]) for key in ours)


def test_an_adapter_is_kept_beside_the_merged_run(parent: Path, tmp_path: Path) -> None:
    run = work(settings(parent, tmp_path / "run", "sft", adapter="lora", lora={"rank": 4}, lr=1e-2, steps=20))
    stored = peft.read_adapter(run / "adapter")
    assert stored.base == str(parent.resolve())
    assert stored.base_sha256 == checkpoint.read_run(run).data["start_from_sha256"]
    model, _ = checkpoint.load_model(parent)
    peft.attach_stored(model, stored.settings, stored.weights, name="x")
    peft.select(model, "x")
    whole, _ = checkpoint.load_model(run)
    ids = torch.tensor([[0, 5, 9, 20, 33]])
    torch.testing.assert_close(model(ids), whole(ids), rtol=1e-4, atol=1e-4)
    small = (run / "checkpoints" / "step-000020" / "model.safetensors").stat().st_size
    assert small < (run / "model.safetensors").stat().st_size / 2


@pytest.mark.parametrize("packed", ["int8", "int4", "nf4"])
def test_adapters_of_packed_models(parent: Path, tmp_path: Path, packed: str) -> None:
    for method in ("sft", "grpo"):
        run = work(settings(parent, tmp_path / method, method, adapter=f"lora-{packed}", lora={"rank": 4}, lr=1e-2))
        losses = [row["loss"] for row in metrics(run) if "loss" in row]
        assert method == "grpo" or losses[-1] < losses[0]
        checkpoint.load_model(run)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("sft", {}),
        ("dpo", {"adapter": "lora"}),
        ("grpo", {"rl": {"kl": 0.1}}),
        ("distill", {"distill": {"logits": "stored"}}),
    ],
)
def test_a_plan_says_what_the_run_takes(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, more: dict[str, Any]
) -> None:
    asked = settings(parent, tmp_path / "run", method, plan=True, as_json=True, **more)
    assert tune_command.run(asked) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "run").exists()
    expected = plan["forecast"]
    assert expected["steps"] == STEPS
    evaluations = expected["evaluation_s"] * (STEPS // 3 + 1)
    assert expected["seconds"] == pytest.approx(
        expected["before_s"] + STEPS * expected["seconds_per_step"] + evaluations, rel=1e-9
    )
    model, _ = checkpoint.load_model(parent)
    bytes_of_all = sum(4 * parameter.numel() for parameter in model.parameters())
    memory = expected["memory"]
    assert memory["optimizer"] == 2 * memory["gradients"]
    assert (memory["gradients"] == bytes_of_all) == (method != "dpo")
    assert memory["weights"] == pytest.approx(bytes_of_all * (2 if method == "grpo" else 1), rel=0.3)
    assert plan["share"] == (method in ("dpo", "grpo"))
    assert 0 < expected["optimizer_share"] < 1


@pytest.mark.parametrize("more", [{}, {"optimizer": "muon", "lr": None}], ids=["adamw", "muon"])
def test_timing_a_step_moves_no_weight(parent: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    run = work(settings(parent, tmp_path / "run", "sft", steps=1, schedule={"warmup_steps": 1, "peak": 1e-9}, **more))
    before = load_file(parent / "model.safetensors")
    after = load_file(run / "checkpoints" / "step-000001" / "model.safetensors")
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["sft", "reward", "ppo"])
def test_a_run_begins_without_the_gradients_of_its_plan(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    train, left = TuningRun.train, []

    def look(self: TuningRun) -> Any:
        left.extend(name for name, parameter in self.model.named_parameters() if parameter.grad is not None)
        return train(self)

    monkeypatch.setattr(TuningRun, "train", look)
    work(settings(parent, tmp_path / "run", method, steps=1))
    assert left == []


# ---------------------------------------------------------------- what is bad


def test_bad_requests_end_before_any_work(parent: Path, tmp_path: Path, small_tokenizer: Tokenizer) -> None:
    out = tmp_path / "run"
    file = parent.parent / "prompts.jsonl"
    for reason, error, more in [
        ("hold no preference", DataError, {"method": "dpo", "data": parent.parent / "conversations.jsonl"}),
        ("no answer to learn", DataError, {"method": "sft", "data": file}),
        ("no file or folder", DataError, {"method": "sft", "data": tmp_path / "nothing.jsonl"}),
        ("sees 96 tokens", ConfigError, {"method": "sft", "context": 1000}),
        ("needs the field 'names'", DataError, {"method": "grpo", "rl": {"rewards": ["unit_tests"]}}),
        ("give much to answers that answer nothing", ConfigError, {"method": "grpo", "rl": {
            "rewards": [f"{parent.parent / 'own.py'}:generous"], "accept_hackable": False}}),
        ("no finite number", TrainingError, {"method": "grpo", "rl": {
            "rewards": [f"{parent.parent / 'own.py'}:broken"]}}),
        ("does not fit into", DataError, {"method": "grpo", "rl": {"max_tokens": 90}}),
    ]:  # fmt: skip
        with pytest.raises(error, match=reason):
            work(settings(parent, out, **more))
        assert not out.exists()
    for reason, values in [
        ("needs an adapter", {"method": "dpo", "preference": {"reference": "adapter-off"}}),
        ("sft does not look at --rl.group-size", {"rl": {"group_size": 4}}),
        ("orpo does not look at --preference.loss", {"method": "orpo", "preference": {"loss": "ipo"}}),
        ("hinge knows no label smoothing", {"method": "dpo", "preference": {"loss": "hinge", "label_smoothing": 0.1}}),
        ("add --adapter lora", {"lora": {"rank": 4}}),
        ("--lr is the rate of adamw", {"optimizer": "muon", "lr": 1e-3}),
        ("adamw does not look at --muon.…: add --optimizer muon", {"muon": {"lr": 0.02}}),
        ("muon does not look at --adamw.…: add", {"optimizer": "muon", "adamw": {"beta1": 0.8}}),
        ("learnt with adamw", {"optimizer": "muon", "adapter": "lora"}),
        ("learns from rewards", {"method": "grpo"}),
    ]:
        with pytest.raises(ValueError, match=reason):
            TuneSettings.model_validate({"start_from": parent, "data": file, **values})
    plain = Tokenizer.load(parent).with_tokens([], special=True)
    assert plain.chat_template is None


def test_texts_that_are_too_long_are_cut_and_counted(parent: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    long = {"prompt": "the", "completion": "cat " * 200}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows("conversations"), long]))
    notes: list[str] = []
    with LiveProgress(quiet=True) as progress:
        progress.note = notes.append  # type: ignore[method-assign]
        tune(settings(parent, tmp_path / "run", "sft", data=file, steps=1), progress)
    assert any("1 texts are longer than 96 tokens" in note for note in notes)
    file.write_text(file.read_text() + json.dumps({"prompt": "the " * 200, "completion": "cat"}) + "\n")
    with pytest.raises(DataError, match="hold no answer to learn"):
        work(settings(parent, tmp_path / "other", "sft", data=file))
    run = work(settings(parent, tmp_path / "other", "sft", data=file, skip_bad_rows=True, steps=1))
    assert run.is_dir()


def test_resuming_what_cannot_be(parent: Path, tmp_path: Path) -> None:
    run = work(settings(parent, tmp_path / "run", "sft", steps=1))
    with pytest.raises(CheckpointError, match="is finished"):
        work(TuneSettings(out=run, resume=True))
    record = checkpoint.read_run(run)
    record.status = "interrupted"
    checkpoint.write_run(run, record)
    with pytest.raises(ConfigError, match="lr cannot change"):
        work(TuneSettings(out=run, resume=True, lr=1.0))
    record.data["rows_sha256"] = "other"
    checkpoint.write_run(run, record)
    with pytest.raises(CheckpointError, match="have changed"):
        work(TuneSettings(out=run, resume=True))


# ---------------------------------------------------------------- graded answers


def test_samples_are_graded_and_written(parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "run": parent,
        "prompts": parent.parent / "prompts.jsonl",
        "rewards": [f"{parent.parent / 'own.py'}:short"],
        "samples": 4,
        "max_tokens": 6,
        "form": "plain",
        "as_json": True,
    }
    for what in ("answers", "best", "pairs"):
        out = tmp_path / f"{what}.jsonl"
        sample_command.run(sample_command.Settings(**given, out=out, write=what))
        found = json.loads(capsys.readouterr().out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(lines) == found["rows"]
        if what == "answers":
            assert len(lines) == 30 * 4
            mean = sum(1 / (1 + len(line["completion"])) for line in lines) / 120
            assert found["reward"] == pytest.approx(mean)
            assert lines[0]["answer"] == "mat"
        elif what == "pairs":
            assert all(len(line["chosen"]) < len(line["rejected"]) for line in lines)
    with pytest.raises(ConfigError, match="exists already"):
        sample_command.run(sample_command.Settings(**given, out=out))
    with pytest.raises(ConfigError, match="no chat template"):
        sample_command.run(sample_command.Settings(**{**given, "form": "chat"}))
