"""`inkling tokenizer repair`: what is wrong with a tokenizer, and a mended one."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import TokenizerError
from inkling.tokenizer.repair import repair
from inkling.tokenizer.tokenizer import TOKENIZER_FILE


class Settings(CommandSettings):
    """Say what is wrong with a tokenizer and mend it: a vocabulary without merges, missing bytes, ids that are given
    twice or not at all, special tokens that are none.

    Ids of tokens never move, except where two tokens had the same one.

    Example: inkling tokenizer repair old/tokenizer.json -o mended
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    tokenizer: Positional[Path]
    """A tokenizer.json, or a folder with one or with vocab.json and merges.txt."""
    out: Path | None = None
    """New folder for the mended one. Without it, nothing is written."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Look, mend, write."""
    if settings.out is not None and (settings.out / TOKENIZER_FILE).exists():
        raise TokenizerError(f"{settings.out} already holds a tokenizer; choose another -o")
    result = repair(settings.tokenizer)
    if settings.out is not None:
        result.tokenizer.save(settings.out)
    if settings.as_json:
        out = str(settings.out) if settings.out is not None else None
        print(json.dumps({"found": result.found, "vocab_size": result.tokenizer.vocab_size, "written": out}))
        return
    for line in result.found:
        print(f"- {line}")
    if not result.found:
        print("nothing is wrong with it")
    if settings.out is not None:
        print(f"{settings.out}: {result.tokenizer.vocab_size:,} tokens; every awkward string comes back as it was")
    elif result.found:
        print("Nothing was written. Name a folder for the mended one: -o FOLDER")
