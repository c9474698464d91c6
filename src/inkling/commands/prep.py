"""`inkling prep`: files and folders to a data folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.check import check
from inkling.data.prep import Executor, Prepared, prep, prep_shard
from inkling.data.prep_options import PrepOptions
from inkling.errors import ConfigError
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer


class Settings(PrepOptions, CommandSettings):
    """Turn files and folders into a data folder: cleaned, deduplicated, split by document, tokenized.

    Reads text, Markdown, HTML, JSON, CSV, Parquet, notebooks, source code, Wikipedia dumps, and archives of all these.
    `builtin:python` is text that is on every machine: the sources of Python and PyTorch. Killed, it goes on where it
    was when started again. Lists are repeated options, or one with commas: --languages en,de.

    Example: inkling prep notes/ book.txt -o data/notes
    Example: inkling prep shakespeare.txt -o data/shakespeare --level char --split tail --clean none
    Example: inkling prep --check data/notes
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    paths: Positional[list[str]]
    """Files, folders, builtin:python and its cuts -small, -full and -prose, URLs, or hf:OWNER/NAME."""
    out: Path | None = None
    """Data folder to make."""
    overwrite: bool = False
    """Replace a data folder that was made in another way."""
    workers: int | None = Field(None, ge=1)
    """Processes. Default: one for each core."""
    executor: Executor = "local"
    """What reads and cleans: our own processes, or datatrove's."""
    shard: str | None = Field(None, pattern=r"^\d+/[1-9]\d*$")
    """i/n, from 0/n: only read and clean this share, on one of n machines that see the same folders. Then run the same
    without --shard."""
    check: bool = False
    """Read the data folders that are named and see that nothing was altered and no validation text is trained on."""
    show: int = Field(0, ge=0)
    """Do not prepare: show so many rows of chats or preferences, token by token, with what is learnt of them, by the
    --tokenizer of a run."""
    form: Literal["chat", "plain"] = "chat"
    """With --show: as `inkling tune --form`."""
    as_json: bool = False
    """Print one JSON object on standard output."""


def run(settings: Settings) -> None:
    """Prepare, and say what was in the text."""
    if settings.check:
        _check(settings)
        return
    if settings.show:
        if settings.tokenizer is None:
            raise ConfigError("whose tokens? Name a run: --tokenizer runs/NAME")
        from inkling.commands._show import show_rows  # brings torch, which preparing does without

        tokenizer = Tokenizer.load(settings.tokenizer)
        for path in settings.paths:
            show_rows(Path(path), tokenizer, settings.show, settings.form)
        return
    if settings.out is None:
        raise ConfigError("where to? Name the data folder to make: -o data/NAME")
    options = PrepOptions(**settings.model_dump(include=set(PrepOptions.model_fields)))
    with LiveProgress(quiet=settings.as_json) as progress:
        if settings.shard is not None:
            index, count = map(int, settings.shard.split("/"))
            num_units = prep_shard(
                settings.paths,
                settings.out,
                options,
                shard=(index, count),
                num_workers=settings.workers,
                on_progress=progress,
            )
        else:
            prepared = prep(
                settings.paths,
                settings.out,
                options,
                overwrite=settings.overwrite,
                num_workers=settings.workers,
                executor=settings.executor,
                on_progress=progress,
            )
    if settings.shard is not None:
        _say_shard(settings, num_units)
    elif settings.as_json:
        print(json.dumps(summary(settings.out, prepared)))
    else:
        print_summary(settings.out, prepared)


def _check(settings: Settings) -> None:
    for folder in settings.paths:
        with LiveProgress(quiet=settings.as_json) as progress:
            found = check(Path(folder), progress)
        if settings.as_json:
            print(json.dumps(found))
        else:
            share = found["share_of_validation_runs_in_training"]
            print(
                f"{folder} is whole: {found['tokens']['train']:,} training and {found['tokens']['validation']:,} "
                f"validation tokens; {share:.2%} of the runs of words in validation text stand in training text too"
            )


def _say_shard(settings: Settings, num_units: int) -> None:
    if settings.as_json:
        print(json.dumps({"data": str(settings.out), "shard": settings.shard, "units": num_units}))
    else:
        print(f"share {settings.shard} is read: {num_units} units. When all shares are, run the same without --shard")


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
    if report["changes"]:
        print(
            "changed  "
            + ", ".join(f"{change.replace('_', ' ')} {count:,}" for change, count in report["changes"].items())
        )
    print(f"All of it with examples: {out / 'report.html'}")
    if manifest["splits"]["train"]["num_tokens"]:
        print(f"Next:  inkling train {out}")
    else:
        print("There is no plain text in it, only rows of chats and preferences: nothing to pretrain on")
