"""Timings of this machine, kept between runs: the same model need not be timed twice."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from inkling import files, machine
from inkling.train.probe import Choices

_MAX_ENTRIES = 200


def cache_folder() -> Path:
    """Where programs of this user keep what can be made again: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkling"


class ProbeCache:
    """The entry of one question in the file of all timings.

    Args:
        question: All that the answer depends on, beside the machine and the version of torch. JSON-able.
    """

    def __init__(self, **question: Any) -> None:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        content = [question, machine.cpu_name(), machine.usable_cores(), gpu, torch.__version__]
        self._key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        self._path = cache_folder() / "timings.json"

    def read(self) -> tuple[Choices, str] | None:
        """The choices and the reason that were written for this question, or None. A damaged file is an empty one."""
        try:
            entry = self._entries()[self._key]
            return Choices(**entry["choices"]), str(entry["reason"])
        except (KeyError, TypeError):
            return None

    def write(self, choices: Choices, reason: str) -> None:
        """Keep an answer; where the folder cannot be written, nothing is kept."""
        entries = self._entries()
        entries.pop(self._key, None)
        entries[self._key] = {"choices": choices.as_dict(), "reason": reason}
        newest = dict(list(entries.items())[-_MAX_ENTRIES:])
        try:
            files.write_json(self._path, newest)
        except OSError:
            return

    def _entries(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
