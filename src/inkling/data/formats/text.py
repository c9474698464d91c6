"""Plain text and Markdown. Lines that hold only `<|endoftext|>` separate documents; nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from inkling.data.documents import SEPARATOR_LINE, Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".log")

MAX_DOCUMENT_BYTES = 64 << 20
"""A longer document is cut at a line end, so that memory stays bounded."""
_SEPARATOR = SEPARATOR_LINE.encode()


def read(path: Path) -> Iterator[Document | Skipped]:
    """The documents of one file."""
    for number, data in enumerate(_documents(path)):
        name = f"{path}#{number}" if number else str(path)
        text = decode(data, name)
        yield text if isinstance(text, Skipped) else Document(text, name)


def _documents(path: Path) -> Iterator[bytes]:
    lines: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_DOCUMENT_BYTES):  # a file may be one endless line
            if line.strip() == _SEPARATOR or size + len(line) > MAX_DOCUMENT_BYTES:
                yield b"".join(lines)
                lines, size = [], 0
            if line.strip() != _SEPARATOR:
                lines.append(line)
                size += len(line)
    yield b"".join(lines)
