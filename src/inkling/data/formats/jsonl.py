"""JSON Lines: one object a line, its text in `text` or the first other usual field. Bad lines are skipped by number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".jsonl", ".ndjson")

TEXT_FIELDS = ("text", "content", "body", "article", "document", "story", "code")
MAX_LINE_BYTES = 64 << 20
"""A longer line is skipped, so that memory stays bounded."""


def read(file: BinaryIO, name: str, first_line: int = 1) -> Iterator[Document | Skipped]:
    """The documents of one file, in the order of its lines."""
    number = first_line - 1
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        place = f"{name}:{number}"
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            num_bytes = len(line) + _skip_line(file)
            yield Skipped("too_long", num_bytes, f"{place}: a line of {num_bytes / 1e6:.1f} MB")
        elif line.strip():
            yield _read_line(line, place)


def border(data: bytes) -> int | None:
    """After the first line end, if there is one."""
    return data.find(b"\n") + 1 or None


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; its number of bytes."""
    num_bytes = 0
    while part := file.readline(1 << 20):
        num_bytes += len(part)
        if part.endswith(b"\n"):
            break
    return num_bytes


def _read_line(line: bytes, place: str) -> Document | Skipped:
    decoded = decode(line, place)
    if isinstance(decoded, Skipped):
        return decoded
    try:
        row = json.loads(decoded)
    except json.JSONDecodeError as error:
        return Skipped("bad_json", len(line), f"{place}: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # numbers of too many digits, brackets nested too deep
        return Skipped("bad_json", len(line), f"{place}: {error}")
    document = document_of_row(row, place)
    if document is None:
        return Skipped("no_text_field", len(line), f"{place}: none of {', '.join(TEXT_FIELDS)} is a string")
    return document


def document_of_row(row: Any, place: str) -> Document | None:
    """The text of a row with its other fields as metadata; None when no field holds text."""
    if isinstance(row, str):
        return Document(_writable(row), place)
    if not isinstance(row, dict):
        return None
    field = next((field for field in TEXT_FIELDS if isinstance(row.get(field), str)), None)
    if field is None:
        return None
    return Document(_writable(row[field]), place, {key: value for key, value in row.items() if key != field})


def _writable(text: str) -> str:
    """Escapes such as \\ud800 are allowed in JSON and are half a character: no text that can be written again."""
    return text.encode("utf-8", errors="replace").decode()
