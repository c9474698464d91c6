"""What can be made again but is better kept between runs: answers to questions, in files of the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from inkling import files

_MAX_ENTRIES = 200


def cache_folder() -> Path:
    """Where programs of this user keep what can be made again: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkling"


class Kept:
    """The answer to one question. A damaged file is an empty one; where the folder cannot be written, nothing is kept.

    Args:
        file: Name of the file that holds all answers to questions of this kind, the newest of them.
        question: All that the answer depends on. JSON-able.
    """

    def __init__(self, file: str, question: Any) -> None:
        self._path = cache_folder() / file
        self._key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]

    def read(self) -> Any:
        """The JSON that was written for this question, or None."""
        return self._entries().get(self._key)

    def write(self, answer: Any) -> None:
        """Keep an answer, in place of an earlier one."""
        entries = self._entries()
        entries.pop(self._key, None)
        entries[self._key] = answer
        try:
            files.write_json(self._path, dict(list(entries.items())[-_MAX_ENTRIES:]))
        except OSError:
            return

    def _entries(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
