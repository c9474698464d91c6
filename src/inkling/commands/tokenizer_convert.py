"""`inkling tokenizer convert`: a tokenizer in the files of another tool."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.export import Layout, export


class Settings(CommandSettings):
    """Write a tokenizer as tokenizer.json, as tiktoken's ranks or as GPT-2's two files.

    What is written is read back and compared on awkward strings; what a layout cannot say is refused.

    Example: inkling tokenizer convert runs/notes --to tiktoken -o notes-tiktoken
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    tokenizer: Positional[str]
    """A run, a data folder, a tokenizer.json, GPT-2's or tiktoken's files, or tiktoken:NAME."""
    out: Path
    """New folder."""
    to: Layout = Field("tokenizer.json")
    """tokenizer.json, tiktoken (ranks; pattern and special tokens beside them), or gpt2 (encoder.json, vocab.bpe)."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Load, write, compare."""
    written = export(Tokenizer.load(settings.tokenizer), settings.out, settings.to)
    if settings.as_json:
        print(json.dumps({"folder": str(settings.out), "files": written}))
    else:
        print(f"{settings.out}: {', '.join(written)}; read back and the same")
