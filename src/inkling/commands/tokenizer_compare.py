"""`inkling tokenizer compare`: several tokenizers on the same text, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from inkling.config import CommandSettings, Field, Positional
from inkling.data.documents import read_documents
from inkling.errors import DataError
from inkling.progress import LiveProgress
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.report import report


class Settings(CommandSettings):
    """Compare tokenizers on your own text: how much text a token holds, and what the vocabulary costs a model.

    Example: inkling tokenizer compare runs/notes tiktoken:gpt2 --text held_out.txt
    """

    tokenizers: Positional[list[str]]
    """Runs, data folders, tokenizer.json files, GPT-2's or tiktoken's files, or tiktoken:NAME."""
    text: list[str] = Field(min_length=1)
    """Files, folders or builtin:python, best text that none of them was trained on."""
    hidden_size: int = Field(512, ge=1)
    """Width of the model whose embedding is counted."""
    as_json: bool = False
    """Print one JSON list."""


def run(settings: Settings) -> None:
    """Encode the text with each."""
    loaded = {source: Tokenizer.load(source) for source in settings.tokenizers}
    with LiveProgress(quiet=settings.as_json) as progress:
        texts = [document.text for document in read_documents(settings.text)]
        if not any(texts):
            raise DataError(f"there is no text in {', '.join(settings.text)}")
        rows = []
        for number, (source, tokenizer) in enumerate(loaded.items()):
            progress("encoding", number, len(loaded), source)
            rows.append({"tokenizer": source, **report(tokenizer, texts), **_cost(tokenizer, settings.hidden_size)})
    if settings.as_json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        Console().print(_table(rows))


def _cost(tokenizer: Tokenizer, hidden_size: int) -> dict[str, Any]:
    return {"embedding_parameters": tokenizer.vocab_size * hidden_size}


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "tokenizer": lambda row: str(row["tokenizer"]),
    "tokens": lambda row: f"{row['vocab_size']:,}",
    "bytes per token": lambda row: f"{row['bytes_per_token']:.3f}",
    "tokens per word": lambda row: f"{row['tokens_per_word']:.3f}",
    "single bytes": lambda row: f"{row['single_byte_share']:.1%}",
    "unused": lambda row: f"{row['unused'] / row['vocab_size']:.0%}",
    "embedding": lambda row: f"{row['embedding_parameters'] / 1e6:.2f} M",
    "pattern": lambda row: str(row["pattern"] or "its own"),
    "lossless": lambda row: "no" if row["documents_changed_by_round_trip"] else "yes",
}


def _table(rows: list[dict[str, Any]]) -> Table:
    """The best figure of a column, where there is a best, is bold."""
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    best = max(row["bytes_per_token"] for row in rows)
    for row in sorted(rows, key=lambda row: -row["bytes_per_token"]):
        cells = [show(row) for show in _COLUMNS.values()]
        if row["bytes_per_token"] == best:
            cells[2] = f"[bold]{cells[2]}[/bold]"
        table.add_row(*cells)
    return table
