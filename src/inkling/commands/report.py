"""`inkling report`: all about a run, on one page."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.report.facts import facts_of
from inkling.report.page import write_report


class Settings(CommandSettings):
    """Write a page about a run: curves, scores with their intervals and floors, samples, data, cost, and lineage.

    The page is one file that fetches nothing, to be sent to others. What was not measured is not on it: run
    `inkling eval` before, also with --task and --audit.

    Example: inkling report runs/notes
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    run: Positional[Path]
    """Run directory."""
    out: Path | None = None
    """Page to write. Default: report.html in the run."""
    as_json: bool = False
    """Print all of it as one JSON object, and write no page."""


def run(settings: Settings) -> None:
    """Gather and write."""
    facts = facts_of(settings.run)
    if settings.as_json:
        print(json.dumps(facts))
        return
    path = settings.out or settings.run / "report.html"
    write_report(path, facts)
    print(path)
