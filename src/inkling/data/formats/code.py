"""Source code: a file is a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (
    *(".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp"),
    *(".hpp", ".cu", ".cs", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".hs", ".ml"),
    *(".sh", ".bash", ".sql", ".css", ".yaml", ".yml", ".toml", ".cmake", ".tcl", ".ex", ".clj", ".lisp"),
)

MAX_FILE_BYTES = 4 << 20
"""Larger source files are generated."""


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The file, as one document."""
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        yield Skipped("generated", len(data), f"{name}: more than {MAX_FILE_BYTES / 1e6:.1f} MB of source code")
        return
    text = decode(data, name)
    yield text if isinstance(text, Skipped) else Document(text, name)
