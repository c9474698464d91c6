"""`inkling lineage`: where a run comes from, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.config import CommandSettings, Positional
from inkling.report.lineage import lineage

_MAX_SOURCES = 5
_CHECKS = {"same": "as it was", "changed": "CHANGED since", "missing": "NOT there", "unknown": "not checked"}


class Settings(CommandSettings):
    """Walk from sources over data folder and tokenizer to a run and its exports, each with its hash.

    Says of each whether it is still what it was when it was used.

    Example: inkling lineage runs/notes
    """

    run: Positional[Path]
    """Run directory."""
    as_json: bool = False
    """Print one JSON object a line."""


def run(settings: Settings) -> None:
    """Print a line for each."""
    links = lineage(settings.run)
    if settings.as_json:
        for link in links:
            print(json.dumps(link.__dict__))
        return
    num_sources = 0
    total = sum(link.kind == "source" for link in links)
    for link in links:
        if link.kind == "source":
            num_sources += 1
            if num_sources > _MAX_SOURCES:
                if num_sources == total:
                    print(f"source     and {total - _MAX_SOURCES:,} more")
                continue
        note = f" ({link.note})" if link.note else ""
        print(f"{link.kind:<10} {link.sha256[:12]:<12}  {_CHECKS[link.check]:<13}  {link.name}{note}")
