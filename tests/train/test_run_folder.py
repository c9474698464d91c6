"""What a run leaves on disk: files that other tools open, and nothing broken whatever happens."""

from __future__ import annotations

import errno
import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from test_resume import settings, train

from inkling import checkpoint
from inkling.checkpoint import TrainingState
from inkling.errors import CheckpointError, ConfigError, DataError, InklingError, ModelError, TrainingError
from inkling.tensor_files import read_tensors, write_tensors
from inkling.train.session import CheckpointSettings


@pytest.fixture(scope="module")
def run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return train(
        settings(data_folder, tmp_path_factory.mktemp("runs") / "run", log={"samples": True, "sample_tokens": 8})
    )


@pytest.mark.parametrize("arch", ["qwen3", "llama", "gpt2"])
def test_transformers_opens_a_run_and_computes_the_same_logits(arch: str, data_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = train(settings(data_folder, tmp_path / arch, arch=arch, steps=3, log={"samples": False}))
    ours, tokenizer = checkpoint.load_model(folder)
    theirs, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    ids = torch.tensor([tokenizer.encode("the cat sat on a mat über")])
    with torch.no_grad():
        difference = (ours(ids) - theirs(ids).logits).abs().max()
    assert difference < 1e-4
    assert AutoTokenizer.from_pretrained(folder)("the cat<|im_end|>")["input_ids"] == tokenizer.encode(
        "the cat<|im_end|>", allow_special=True
    )


def test_the_root_holds_the_best_weights_and_the_record_says_how_they_came(run: Path) -> None:
    record = checkpoint.read_run(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validation = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    assert record.results["best_val_loss"] == min(validation.values())
    assert validation[record.results["best_step"]] == min(validation.values())
    assert record.status == "finished"
    assert record.settings["seed"] == 1
    assert record.versions["torch"] == torch.__version__
    assert record.num_parameters == sum(p.numel() for p in checkpoint.load_model(run)[0].parameters())
    assert (run / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert "SESSION STARTED" in (run / "training.log").read_text()
    assert (run / "samples.txt").read_text().count("step") >= 4


def test_only_the_last_checkpoints_are_kept(run: Path) -> None:
    assert [path.name for path in checkpoint.checkpoint_folders(run)] == ["step-000009", "step-000012"]


def test_checkpoints_at_the_ends_of_epochs_are_kept_apart(data_folder: Path, tmp_path: Path) -> None:
    options = {"every": 100, "keep_epochs": 2}
    folder = train(
        settings(
            data_folder,
            tmp_path / "run",
            batch_size=300,
            steps=7,
            checkpoint=options,
            machine={"precision": "fp32", "compile": "no", "threads": 1, "attention": "sdpa", "micro_batch": 300},
        )
    )
    names = [path.name for path in checkpoint.checkpoint_folders(folder)]
    epochs = [name for name in names if name.startswith("epoch")]
    assert len(epochs) == 2
    assert epochs[-1].startswith("epoch-00")


def test_a_file_that_was_altered_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    digest = write_tensors(path, {"w": torch.arange(6.0)})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["sha256"] == digest
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        read_tensors(path, verify=True)
    path.write_bytes(content[:-3])
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path, verify=False)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = TrainingState(
        step=3, values={"loss": 0.1 + 0.2}, tensors={"a/momentum": torch.randn(3, 2), "n": torch.tensor(7)}
    )
    checkpoint.save_checkpoint(tmp_path, "step-000003", {"w": torch.ones(2)}, state)
    found = checkpoint.load_checkpoint(tmp_path, lambda text: None)
    assert found is not None
    weights, loaded = found
    assert torch.equal(weights["w"], torch.ones(2))
    assert (loaded.step, loaded.values) == (3, {"loss": 0.1 + 0.2})
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in state.tensors.items())


def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk; the kernel answers both in the same place."""
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"w": torch.ones(10)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"could not write .*model.safetensors: the disk is full"):
            write_tensors(path, {"w": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_full_disk_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("inkling.files.write_file", full)
    with pytest.raises(CheckpointError, match="the disk is full; free some space"):
        write_tensors(tmp_path / "a.safetensors", {"w": torch.ones(1)})


def broken(folder: Path, name: str, content: str) -> Path:
    folder.mkdir()
    (folder / name).write_text(content)
    return folder


def test_a_folder_that_is_no_run_of_ours(tmp_path: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no run"):
        checkpoint.load_model(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no model"):
        checkpoint.load_model(tmp_path)
    foreign = broken(tmp_path / "foreign", "config.json", '{"model_type": "bert", "vocab_size": 10}')
    with pytest.raises(CheckpointError, match="cannot run: there is no architecture 'bert'"):
        checkpoint.load_model(foreign)
    with pytest.raises(CheckpointError, match="somebody else's model"):
        checkpoint.read_run(foreign)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read_run(broken(tmp_path / "cut", "run.json", '{"format_version": 1, "sta'))
    with pytest.raises(CheckpointError, match="format version 99"):
        checkpoint.read_run(broken(tmp_path / "new", "run.json", '{"format_version": 99}'))


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"size": "huge"}, ModelError, "there is no size 'huge'"),
        ({"arch": "lama"}, ModelError, "did you mean 'llama'"),
        ({"arch": "gpt2", "model": {"num_key_value_heads": 1}}, ModelError, "as many key-value heads as query heads"),
        ({"context": 100_000}, DataError, "less than one context"),
        ({"batch_size": 100_000}, DataError, "Lower --batch-size to"),
        ({"machine": {"device": "cuda:9"}}, ConfigError, "cannot be used"),
        ({"batch_size": 4, "machine": {"micro_batch": 3}}, Exception, "must divide"),
    ],
)
def test_bad_requests_end_before_any_work(
    more: dict[str, Any], error: type[InklingError], message: str, data_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(settings(data_folder, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_again_and_again_is_given_up(data_folder: Path, tmp_path: Path) -> None:
    wanted = settings(
        data_folder,
        tmp_path / "run",
        optimizer="adamw",
        adamw={"lr": 1e30},  # the first update leaves no finite weight
        guard={"skips_before_rollback": 2, "max_rollbacks": 2},
        checkpoint={"every": 1},
    )
    with pytest.raises(TrainingError, match=r"diverged at step .* after 2 roll-backs"):
        train(wanted)
    log = (tmp_path / "run" / "training.log").read_text()
    assert log.count("ROLLED BACK") == 2
    assert "learning rate × 0.25" in log
    assert checkpoint.read_run(tmp_path / "run").status == "failed"
    weights, _ = read_tensors(tmp_path / "run" / "model.safetensors", verify=True)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_short_run_has_checkpoints_on_its_way_to_go_back_to(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inkling.train.loop import Trainer

    monkeypatch.setattr(
        "inkling.train.session._WRITING_SHARE", math.inf
    )  # steps of a millisecond leave no time to write
    backward = Trainer._backward
    bad = iter([True, True])

    def spoiled(self: Trainer) -> float:
        loss = backward(self)
        return math.nan if self.state.step >= 17 and next(bad, False) else loss

    monkeypatch.setattr(Trainer, "_backward", spoiled)
    wanted = settings(data_folder, tmp_path / "run", steps=20, guard={"skips_before_rollback": 2})
    train(wanted.model_copy(update={"checkpoint": CheckpointSettings(keep_steps=20)}))
    kept = [path.name for path in checkpoint.checkpoint_folders(tmp_path / "run")]
    assert kept == [f"step-{step:06d}" for step in range(0, 21, 2)]
    log = (tmp_path / "run" / "training.log").read_text()
    assert "step 19 | ROLLED BACK | to step 16, learning rate × 0.5" in log


def test_a_vocabulary_padded_to_a_multiple_trains_evaluates_and_writes(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from inkling.cli import main

    folder = train(settings(data_folder, tmp_path / "padded", steps=3, vocab_multiple=64, log={"samples": False}))
    model, tokenizer = checkpoint.load_model(folder)
    assert model.config.vocab_size % 64 == 0
    assert model.config.vocab_size > tokenizer.vocab_size
    assert main(["eval", str(folder), "--no-floors", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    recorded = checkpoint.read_run(folder).results["validation"]
    assert scores["loss"] == pytest.approx(recorded["val_loss"], rel=1e-5)
    assert main(["generate", str(folder), "--prompt", "the", "--max-tokens", "50", "--temperature", "5"]) == 0
