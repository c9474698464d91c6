"""torch.compile that fails: a run that relied on it goes on without, one that asks for it says what is missing."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from test_resume import assert_same_run, settings, train

from inkling import checkpoint
from inkling.commands.train import start_or_resume
from inkling.errors import ConfigError
from inkling.progress import LiveProgress
from inkling.train.compiled import why

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch._dynamo's


def no_compiler(graph: Any, inputs: Any) -> NoReturn:
    raise RuntimeError("No working C++ compiler found\nand more that nobody reads")


@pytest.fixture
def _without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_without_a_compiler")
def test_asked_for_it_is_an_error_before_any_work(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not work here: .*No working C\+\+ compiler.*Leave out --machine"):
        train(
            settings(
                data_folder,
                tmp_path / "run",
                machine={"compile": "yes", "threads": 1, "attention": "sdpa", "precision": "fp32"},
            )
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_without_a_compiler")
def test_a_run_that_was_begun_with_one_goes_on_without(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uncompiled, run = (train(settings(data_folder, tmp_path / name, steps=6)) for name in ("uncompiled", "run"))
    train(settings(data_folder, uncompiled, resume=True))
    record = checkpoint.read_run(run)
    record.choices["compile"] = True
    checkpoint.write_run(run, record)
    with LiveProgress() as progress:
        start_or_resume(settings(data_folder, run, resume=True), progress)
    assert checkpoint.read_run(run).choices["compile"] is False
    assert "training goes on without" in capsys.readouterr().err
    assert_same_run(run, uncompiled)


def test_a_failure_that_says_nothing_is_called_by_its_kind() -> None:
    assert why(AssertionError()) == "AssertionError"
    assert why(RuntimeError("first\nsecond")) == "first"
