"""Shared by all tests: fixed seeds, one thread, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_every_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
