"""Asking a runtime in a process of its own: a file that it does not like may end it, and its memory is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from inkling.errors import ExportError

ANSWERS, LOG_PROBABILITIES = "answers.json", "log_probabilities.npy"
"""What the script writes beside its job."""
_TIMEOUT_S = 600


def ask(script: str, job: dict[str, Any], runtime: str) -> tuple[dict[str, Any], np.ndarray]:
    """Run a script with a job, and return its answers and log probabilities.

    The script is run as a file: as a module it would bring this package, and torch, along. Raises ExportError with what
    the runtime said when it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-P", script, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise ExportError(f"{runtime} took longer than {_TIMEOUT_S // 60} minutes; use --no-verify") from None
        if done.returncode or not (folder / ANSWERS).exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
            told = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise ExportError(f"{runtime} does not accept the file: {told.strip()[:300]}")
        answers = json.loads((folder / ANSWERS).read_text(encoding="utf-8"))
        return answers, np.load(folder / LOG_PROBABILITIES)
