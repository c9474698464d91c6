"""JSON Lines: one object a line, its text in `text` or the first other usual field. Bad lines are skipped by number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".jsonl", ".ndjson")

TEXT_FIELDS = ("text", "content", "body", "article", "document", "story", "code")
MAX_LINE_BYTES = 64 << 20
"""A longer line is skipped, so that memory stays bounded."""


def read(path: Path) -> Iterator[Document | Skipped]:
    """The documents of one file, in the order of its lines."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            name = f"{path}:{number}"
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                num_bytes = len(line) + _skip_line(file)
                yield Skipped(name, "too_long", num_bytes, f"{name}: a line of {num_bytes / 1e6:.1f} MB")
            elif line.strip():
                yield _read_line(line, name)


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; its number of bytes."""
    num_bytes = 0
    while part := file.readline(MAX_LINE_BYTES):
        num_bytes += len(part)
        if part.endswith(b"\n"):
            break
    return num_bytes


def _read_line(line: bytes, name: str) -> Document | Skipped:
    decoded = decode(line, name)
    if isinstance(decoded, Skipped):
        return decoded
    try:
        row = json.loads(decoded)
    except json.JSONDecodeError as error:
        return Skipped(name, "bad_json", len(line), f"{name}: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # numbers of too many digits, brackets nested too deep
        return Skipped(name, "bad_json", len(line), f"{name}: {error}")
    text = _text_of(row)
    if text is None:
        return Skipped(name, "no_text_field", len(line), f"{name}: none of {', '.join(TEXT_FIELDS)} is a string")
    # Escapes such as \ud800 are allowed in JSON and are half a character: no text that can be written again.
    return Document(text.encode("utf-8", errors="replace").decode(), name)


def _text_of(row: object) -> str | None:
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return None
    return next((row[field] for field in TEXT_FIELDS if isinstance(row.get(field), str)), None)
