"""Source code: a file is a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (
    *(".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp"),
    *(".hpp", ".cu", ".cs", ".go", ".rs", ".swift", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".hs", ".ml"),
    *(".sh", ".bash", ".sql", ".html", ".css", ".yaml", ".yml", ".toml", ".cmake", ".tcl", ".ex", ".clj", ".lisp"),
)

MAX_FILE_BYTES = 4 << 20
"""Larger source files are generated."""


def read(path: Path) -> Iterator[Document | Skipped]:
    """The file, as one document."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        yield Skipped(str(path), "generated", size, f"{path}: {size / 1e6:.1f} MB of source code in one file")
        return
    text = decode(path.read_bytes(), str(path))
    yield text if isinstance(text, Skipped) else Document(text, str(path))
