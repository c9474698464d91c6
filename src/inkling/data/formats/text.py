"""Plain text and Markdown. Lines that hold only `<|endoftext|>` separate documents.

Nothing else is touched, but for the licence around the books of Project Gutenberg.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO

from inkling.data.documents import SEPARATOR_LINE, Document, Skipped
from inkling.data.formats._decode import decode, wide_encoding
from inkling.data.formats._gutenberg import strip_licence

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".log")

MAX_DOCUMENT_BYTES = 32 << 20
"""A longer document is cut, so that memory stays bounded."""
_READ_BYTES = 1 << 20
_LICENCE_FILES = {"license", "licence", "copying", "notice", "unlicense"}
_GUTENBERG = "PROJECT GUTENBERG"
_SEPARATOR = re.compile(rb"^[ \t]*" + re.escape(SEPARATOR_LINE.encode()) + rb"[ \t]*\r?(?:\n|\Z)", re.MULTILINE)
_UTF8_MAX_BYTES = 4


def read(file: BinaryIO, name: str, first_line: int = 1) -> Iterator[Document | Skipped]:
    """The documents of one file, named by their first line. A file whose beginning is binary is skipped as a whole."""
    if PurePath(name).stem.lower() in _LICENCE_FILES:
        yield Skipped("licence_file", _num_bytes_left(file), name)
        return
    beginning = file.read(_READ_BYTES)
    if wide_encoding(beginning):
        yield from _whole(beginning + file.read(MAX_DOCUMENT_BYTES), name)
        return
    if b"\0" in beginning:
        yield Skipped("binary", len(beginning) + _num_bytes_left(file), f"{name}: holds zero bytes")
        return
    for line, data in _documents(beginning, file):
        yield from _whole(data, name if first_line + line == 1 else f"{name}:{first_line + line}")


def _whole(data: bytes, place: str) -> Iterator[Document | Skipped]:
    """One document."""
    text = decode(data, place)
    if isinstance(text, Skipped):
        yield text
    elif _GUTENBERG in text[:20_000].upper():
        yield Document(strip_licence(text), place, {"gutenberg": True})
    else:
        yield Document(text, place)


def border(data: bytes) -> int | None:
    """Where a document may begin: after the first separator, or else paragraph, line or character."""
    separator = _SEPARATOR.search(data, data.find(b"\n") + 1)
    if separator:
        return separator.end()
    for end in (b"\n\n", b"\n\r\n", b"\n"):
        found = data.find(end)
        if found >= 0:
            return found + len(end)
    return next((start for start in range(min(_UTF8_MAX_BYTES, len(data))) if data[start] & 0xC0 != 0x80), 0)


def _documents(data: bytes, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(lines before it, bytes) of each document."""
    pending, line = bytearray(), 0
    searched = 0  # up to here `pending` has no separator
    while data:
        pending += data
        data = file.read(_READ_BYTES)
        last_line = pending.rfind(b"\n") + 1  # what follows may be the beginning of a separator
        start = 0
        for separator in _SEPARATOR.finditer(pending, searched, last_line):
            if separator.start() > start:
                yield line, bytes(pending[start : separator.start()])
            line += pending.count(b"\n", start, separator.end())
            start = separator.end()
        del pending[:start]
        searched = last_line - start
        while len(pending) > MAX_DOCUMENT_BYTES:
            cut = _last_border(pending)
            yield line, bytes(pending[:cut])
            line += pending.count(b"\n", 0, cut)
            del pending[:cut]
            searched = max(0, searched - cut)
    end = _SEPARATOR.search(pending, searched)
    if end:
        del pending[end.start() :]
    if pending:
        yield line, bytes(pending)


def _last_border(data: bytearray) -> int:
    """Where to cut a document that is too long: after the last paragraph in its second half, or line, or character."""
    for end in (b"\n\n", b"\n\r\n", b"\n"):
        start = data.rfind(end, MAX_DOCUMENT_BYTES // 2, MAX_DOCUMENT_BYTES)
        if start >= 0:
            return start + len(end)
    ends = range(MAX_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES - _UTF8_MAX_BYTES, -1)
    return next((end for end in ends if data[end] & 0xC0 != 0x80), MAX_DOCUMENT_BYTES)  # 10xxxxxx goes on


def _num_bytes_left(file: BinaryIO) -> int:
    if file.seekable():
        here = file.tell()
        return file.seek(0, os.SEEK_END) - here
    count = 0
    while data := file.read(_READ_BYTES):
        count += len(data)
    return count
