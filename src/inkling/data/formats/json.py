"""JSON: an object is a document, an array one for each of its items. Lines of objects are read as JSON Lines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats import jsonl
from inkling.data.formats._decode import decode
from inkling.data.formats._rows import document_of

SUFFIXES = (".json",)
TAKES_FIELD = True

MAX_BYTES = 128 << 20
"""A larger file is skipped: an array can only be read as a whole."""


def read(file: BinaryIO, name: str, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of one file."""
    first = file.readline(jsonl.MAX_LINE_BYTES)
    if _is_object(first):
        rest = io.BufferedReader(_Joined(first, file))
        yield from jsonl.read(rest, name, 1, text_field)
        return
    data = first + file.read(MAX_BYTES - len(first) + 1)
    if len(data) > MAX_BYTES:
        why = f"{name}: more than {MAX_BYTES / 1e6:.0f} MB in one value; write one object a line into a .jsonl"
        yield Skipped("too_long", len(data), why)
        return
    text = decode(data, name)
    if isinstance(text, Skipped):
        yield text
        return
    try:
        content = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        yield Skipped("bad_json", len(data), f"{name}: {error}")
        return
    rows = _rows_of(content)
    for number, row in enumerate(rows, start=1):
        place = name if rows == [content] else f"{name}#{number}"
        yield document_of(row, place, len(data) // len(rows), text_field)


def _is_object(line: bytes) -> bool:
    """Whether a line is an object as a whole, as in JSON Lines."""
    if not line.lstrip().startswith(b"{") or not line.rstrip().endswith(b"}") or not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _rows_of(content: Any) -> list[Any]:
    """The items of an array, or of the only array of objects in an object; else the value itself."""
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        arrays = [value for value in content.values() if isinstance(value, list) and value]
        if len(arrays) == 1 and all(isinstance(item, dict) for item in arrays[0]) and "messages" not in content:
            strings = [value for value in content.values() if isinstance(value, str) and len(value.split()) > 2]
            return [content] if strings or "conversations" in content else arrays[0]
    return [content]


class _Joined(io.RawIOBase):
    """Some bytes, then the rest of a file."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first = first
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._first[: len(buffer)] or self._file.read(len(buffer))
        self._first = self._first[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)
