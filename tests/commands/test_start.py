"""The guided start, at a terminal of its own."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from inkling import checkpoint
from inkling.cli import main


def converse(folder: Path, answers: list[tuple[str, str]], seconds: float = 100) -> str:
    """Run `inkling start` on a pseudo-terminal: wait for each question, type its answer; all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "inkling", "start"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    shown, position, deadline = "", 0, time.monotonic() + seconds
    waiting = list(answers)
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                break
            if waiting and (found := shown.find(waiting[0][0], position)) >= 0:
                position = found + len(waiting[0][0])
                os.write(ours, (waiting.pop(0)[1] + "\n").encode())
        if not waiting:
            process.wait(10)
    finally:
        process.kill()
        os.close(ours)
    assert not waiting, shown
    assert process.returncode == 0, shown
    return shown


@pytest.mark.timeout(120)
def test_four_answers_are_a_run_and_a_file_of_settings(text_folder: Path, tmp_path: Path) -> None:
    answers = [
        ("Which text?", str(tmp_path / "none")),
        ("Which text?", str(text_folder)),
        ("How much time", "soon"),
        ("How much time", "4s"),
        ("What for?", "3"),
        ("What for?", "2"),
        ("Where?", "runs/mine"),
        ("Train this now?", ""),
    ]
    shown = converse(tmp_path, answers)
    assert "'soon' is not a time" in shown
    assert "choose one of 1, 2" in shown
    assert "loss to expect" in shown
    record = checkpoint.read_run(tmp_path / "runs/mine")
    assert record.status == "finished"
    values = yaml.safe_load((tmp_path / "runs/mine.yaml").read_text())
    assert values == {"data": "data/mine", "out": "runs/mine", "time": "4s", "arch": "speedrun"}
    assert record.settings["arch"] == "speedrun"


def test_without_a_terminal_it_says_what_to_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["start"]) == 2
    assert "inkling prep and inkling train" in capsys.readouterr().err
