"""Timings are found again for the same question only, and a damaged file costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkling.train.kept import cache_folder
from inkling.train.probe import Choices
from inkling.train.probe_cache import ProbeCache


def test_a_timing_is_found_for_the_same_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choices = Choices("bf16", 2, 8, tokens_per_s=123.5)
    assert ProbeCache(width=3).read() is None
    ProbeCache(width=3).write(choices, "fast")
    assert ProbeCache(width=3).read() == (choices, "fast")
    assert ProbeCache(width=4).read() is None
    (cache_folder() / "timings.json").write_text("{ broken")
    assert ProbeCache(width=3).read() is None
    ProbeCache(width=3).write(choices, "again")
    assert ProbeCache(width=3).read() == (choices, "again")


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    ProbeCache(width=3).write(Choices("fp32", 1, 1), "fast")
    assert ProbeCache(width=3).read() is None
