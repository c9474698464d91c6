"""Shared by all tests: fixed seeds, one thread, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions

settings.register_profile("same", derandomize=True)
settings.load_profile("same")


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
