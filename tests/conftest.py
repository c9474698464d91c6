"""Shared by all tests: fixed seeds, one thread, a clean environment."""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from inkling import checkpoint, models
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure that pytest cannot draw, such as one of a class that is half taken apart, ends its test and not all."""
    try:
        return (yield)
    except Exception as error:
        assert call.excinfo is not None
        raised = call.excinfo.value
        told = [f"{type(raised).__mro__} {raised.args}, which pytest could not draw: {error!r}"]
        cause = raised.__cause__ or raised.__context__
        while cause is not None:
            told.append(f"after {type(cause).__mro__} {cause.args}")
            cause = cause.__cause__ or cause.__context__
        told += traceback.format_tb(call.excinfo.tb)
        return pytest.TestReport(item.nodeid, item.location, {}, "failed", "\n".join(told), call.when)


@pytest.fixture(autouse=True)
def _same_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in list(os.environ):
        if name.startswith("INKLING_") and not name.startswith("INKLING_TEST_"):
            monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def test_data() -> Path:
    """Folder of the optional benchmark texts, named by INKLING_TEST_DATA; the test is skipped without it."""
    folder = os.environ.get("INKLING_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("INKLING_TEST_DATA names no folder")
    return Path(folder)


def words(seed: int, num_words: int) -> str:
    """Text with some structure to learn: sentences over a small vocabulary, the same for the same seed."""
    random = np.random.default_rng(seed)
    vocabulary = ["the", "cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "we", "read", "über", "12"]
    chosen = random.choice(len(vocabulary), size=num_words, p=np.arange(1, 15) / 105)
    pieces = [vocabulary[index] + (".\n" if index % 7 == 3 else " ") for index in chosen]
    return "".join(pieces)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sixty small text files."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        (folder / f"{number:02d}.txt").write_text(words(number, 120), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def data_folder(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data folder, at the character level."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    prep([str(text_folder)], out, PrepOptions(level="char", val_fraction=0.2), num_workers=1)
    return out


def random_checkpoint(folder: Path, values: dict[str, Any], tokenizer: Tokenizer, *, spread: float = 0.1) -> Path:
    """A checkpoint folder of a model with all weights random: fresh ones have zero matrices, which hide mistakes."""
    model = models.from_config({**SMALL_SHAPE, "vocab_size": tokenizer.vocab_size + 3, **values})
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
            centre = 1.0 if gain and model.config.model_type != "gemma2" else 0.0  # where a gain is 1 + weight
            parameter.normal_(centre, spread, generator=generator)
    checkpoint.save_model(folder, model, tokenizer)
    return folder


TEXT_ARCHITECTURES = [name for name in models.names() if models.load(name).SIZES]
"""All but those that are made from a trained model of text."""

SMALL_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="session")
def small_tokenizer() -> Tokenizer:
    """A byte-level BPE of 600 tokens."""
    return train_bpe([words(seed, 400) for seed in range(3)], 600)
