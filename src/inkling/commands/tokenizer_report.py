"""`inkling tokenizer report`: how a tokenizer treats a text."""

from __future__ import annotations

import json

from inkling.config import CommandSettings, Positional
from inkling.data.documents import read_documents
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.report import print_report, report


class Settings(CommandSettings):
    """Say how a tokenizer treats a text: bytes per token, unused tokens, digits, white space.

    Example: inkling tokenizer report runs/notes held_out.txt
    Example: inkling tokenizer report tiktoken:gpt2 notes/ --json
    """

    tokenizer: Positional[str]
    """A run, a data folder, a tokenizer.json, GPT-2's or tiktoken's files, or tiktoken:NAME."""
    paths: Positional[list[str]]
    """Files, folders or builtin:python, best text that the tokenizer was not trained on."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Load, encode, report."""
    tokenizer = Tokenizer.load(settings.tokenizer)
    with LiveProgress(quiet=settings.as_json) as progress:
        texts = [document.text for document in read_documents(settings.paths)]
        progress("encoding", 0, None, f"{len(texts)} documents")
        found = {"tokenizer": settings.tokenizer, **report(tokenizer, texts)}
    if settings.as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print_report(found)
