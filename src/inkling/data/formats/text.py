"""Plain text and Markdown. Lines that hold only `<|endoftext|>` separate documents; nothing else is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from inkling.data.documents import SEPARATOR_LINE, Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".log")

MAX_WHOLE_BYTES = 64 << 20
"""A file up to this size that has no separators is one document."""
MAX_PIECE_BYTES = 1 << 20
"""Other files are streamed, and their documents cut into pieces of at most this, so that memory stays bounded."""
_SEPARATOR = re.compile(rb"^[ \t]*" + re.escape(SEPARATOR_LINE.encode()) + rb"[ \t]*\r?$", re.MULTILINE)
_UTF8_MAX_BYTES = 4


def read(path: Path) -> Iterator[Document | Skipped]:
    """The documents of one file. A file whose beginning is binary is skipped as a whole."""
    for number, data in enumerate(_documents(path)):
        name = f"{path}#{number}" if number else str(path)
        text = decode(data, name)
        if isinstance(text, str):
            yield Document(text, name)
        elif number == 0 and text.reason == "binary":
            yield Skipped(name, text.reason, path.stat().st_size, text.example)
            return
        else:
            yield text


def _documents(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if path.stat().st_size <= MAX_WHOLE_BYTES:
            data = file.read()
            if not _SEPARATOR.search(data):
                yield data
                return
            file.seek(0)
        pending = bytearray()
        while line := file.readline(MAX_PIECE_BYTES):  # a file may be one endless line
            if _SEPARATOR.match(line):
                if pending:
                    yield bytes(pending)
                pending.clear()
                continue
            pending += line
            while len(pending) > MAX_PIECE_BYTES:
                cut = _border(pending)
                yield bytes(pending[:cut])
                del pending[:cut]
        if pending:
            yield bytes(pending)


def _border(data: bytearray) -> int:
    """Where to cut the next piece: after the last paragraph in its second half, or line, or character."""
    for border in (b"\n\n", b"\n\r\n", b"\n"):
        start = data.rfind(border, MAX_PIECE_BYTES // 2, MAX_PIECE_BYTES)
        if start >= 0:
            return start + len(border)
    ends = range(MAX_PIECE_BYTES, MAX_PIECE_BYTES - _UTF8_MAX_BYTES, -1)
    return next((end for end in ends if data[end] & 0xC0 != 0x80), MAX_PIECE_BYTES)  # 10xxxxxx continues a character
