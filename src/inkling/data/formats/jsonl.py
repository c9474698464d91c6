"""JSON Lines: one object a line. Bad lines are skipped and named by their number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode
from inkling.data.formats._rows import document_of

SUFFIXES = (".jsonl", ".ndjson")
TAKES_FIELD = True

MAX_LINE_BYTES = 64 << 20
"""A longer line is skipped, so that memory stays bounded."""


def read(file: BinaryIO, name: str, first_line: int = 1, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of one file, in the order of its lines."""
    number = first_line - 1
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        place = f"{name}:{number}"
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            num_bytes = len(line) + skip_line(file)
            yield Skipped("too_long", num_bytes, f"{place}: a line of {num_bytes / 1e6:.1f} MB")
        elif line.strip():
            yield _read_line(line, place, text_field)


def border(data: bytes) -> int | None:
    """After the first line end, if there is one."""
    return data.find(b"\n") + 1 or None


def skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; its number of bytes."""
    num_bytes = 0
    while part := file.readline(1 << 20):
        num_bytes += len(part)
        if part.endswith(b"\n"):
            break
    return num_bytes


def _read_line(line: bytes, place: str, text_field: str | None) -> Document | Skipped:
    decoded = decode(line, place)
    if isinstance(decoded, Skipped):
        return decoded
    try:
        row = json.loads(decoded)
    except json.JSONDecodeError as error:
        return Skipped("bad_json", len(line), f"{place}: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # numbers of too many digits, brackets nested too deep
        return Skipped("bad_json", len(line), f"{place}: {error}")
    return document_of(row, place, len(line), text_field)
