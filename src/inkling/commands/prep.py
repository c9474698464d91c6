"""`inkling prep`: files and folders to a data folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.prep import Prepared, PrepOptions, prep
from inkling.progress import LiveProgress


class Settings(PrepOptions, CommandSettings):
    """Turn files and folders into a data folder: cleaned, deduplicated, split by document, tokenized.

    Reads plain text, Markdown, JSON Lines and source code. `builtin:python` is text that is on every machine: the
    sources of Python and PyTorch. Killed, it goes on where it was when started again.

    Example: inkling prep notes/ book.txt -o data/notes
    Example: inkling prep shakespeare.txt -o data/shakespeare --level char --split tail --clean none
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    paths: Positional[list[str]]
    """Files, folders, or builtin:python and its cuts -small, -full and -prose."""
    out: Path
    """Data folder to make."""
    overwrite: bool = False
    """Replace a data folder that was made in another way."""
    workers: int | None = Field(None, ge=1)
    """Processes. Default: one for each core."""
    as_json: bool = False
    """Print one JSON object on standard output."""


def run(settings: Settings) -> None:
    """Prepare, and say what was in the text."""
    options = PrepOptions(**settings.model_dump(include=set(PrepOptions.model_fields)))
    with LiveProgress(quiet=settings.as_json) as progress:
        prepared = prep(
            settings.paths,
            settings.out,
            options,
            overwrite=settings.overwrite,
            num_workers=settings.workers,
            on_progress=progress,
        )
    if settings.as_json:
        print(json.dumps(summary(settings.out, prepared)))
    else:
        print_summary(settings.out, prepared)


def summary(out: Path, prepared: Prepared) -> dict[str, Any]:
    """What a program wants to know about a data folder."""
    splits = {
        split: {key: value for key, value in counts.items() if key != "shards"}
        for split, counts in prepared.manifest["splits"].items()
    }
    return {
        "data": str(out),
        "was_there": prepared.was_there,
        "vocab_size": prepared.manifest["vocab_size"],
        "split": prepared.manifest["split"],
        **splits,
        **prepared.report,
    }


def print_summary(out: Path, prepared: Prepared) -> None:
    """What a person wants to know about a data folder."""
    manifest, report = prepared.manifest, prepared.report
    if prepared.was_there:
        print(f"{out} is already made from this text in this way")
    for note in manifest["notes"]:
        print(note)
    print(f"split by {manifest['split']}")
    print(f"in    {report['documents_in']:>8,} documents {report['bytes_in'] / 1e6:>9.2f} MB")
    for reason, dropped in report["dropped"].items():
        count, megabytes, example = dropped["documents"], dropped["bytes"] / 1e6, dropped["examples"][0][:90]
        print(f"  dropped {count:>6,} {megabytes:>9.2f} MB  {reason}: {example}")
    print(f"kept  {report['documents_kept']:>8,} documents {report['bytes_kept'] / 1e6:>9.2f} MB")
    for split, counts in manifest["splits"].items():
        per_token = counts["num_bytes"] / max(counts["num_tokens"], 1)
        print(
            f"{split:<11} {counts['num_documents']:,} documents, {counts['num_tokens']:,} tokens, "
            f"{counts['num_bytes'] / 1e6:.2f} MB, {per_token:.2f} bytes per token"
        )
    print(f"Next:  inkling train {out}")
