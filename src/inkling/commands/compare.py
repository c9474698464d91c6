"""`inkling compare`: runs side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import ConfigError, reason_of
from inkling.report.comparison import compare, lines_of, notes_of, write_comparison
from inkling.report.facts import facts_of
from inkling.report.plot import SUFFIXES, write_plot


class Settings(CommandSettings):
    """Put runs side by side, with the significance of each difference from the first.

    A saved baseline is what `inkling report RUN --json` printed, in a file. Figures come from `inkling eval`; they are
    compared on the same documents and questions. Perplexities of different tokenizers are not compared: bits per byte
    are.

    Example: inkling compare runs/a runs/b
    Example: inkling compare baseline.json runs/new -o comparison.html
    Example: inkling compare runs/a runs/b -o comparison.png
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    runs: Positional[list[Path]]
    """Run directories, their checkpoints, or files with what `inkling report --json` printed."""
    out: Path | None = None
    """Also write a page (.html), or a plot (.png or .svg)."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Read, compare, print."""
    if settings.out is not None and settings.out.suffix not in (".html", *SUFFIXES):
        raise ConfigError(f"--out {settings.out} is to end with .html for a page, .png or .svg for a plot")
    facts = [_facts(path) for path in settings.runs]
    names = _names(settings.runs)
    rows, notes = compare(facts), notes_of(facts)
    if settings.out is not None:
        curves = {name: one["curve"]["val_bits_per_byte"] for name, one in zip(names, facts, strict=True)}
        if settings.out.suffix in SUFFIXES:
            write_plot(settings.out, names, rows, curves)
        else:
            write_comparison(settings.out, names, rows, curves, notes)
    if settings.as_json:
        print(json.dumps({"runs": names, "rows": [row.as_dict() for row in rows], "notes": notes}))
        return
    print("\n".join(lines_of(names, rows)))
    for note in notes:
        print(note, file=sys.stderr)
    if settings.out is not None:
        print(settings.out)


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return facts_of(path)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"run", "evaluations", "curve", "cost", "lineage"} <= found.keys():
            raise ValueError("it lacks some parts")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} is not what inkling report --json prints ({reason_of(error)})") from None
    return found


def _names(paths: list[Path]) -> list[str]:
    """Short names that differ."""
    short = [path.stem if path.is_file() else path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
