"""Sources of text, and reading them into documents. What cannot be read is passed on with its reason, never lost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inkling.errors import DataError

SEPARATOR_LINE = "<|endoftext|>"
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}


@dataclass(frozen=True)
class Document:
    """A text that is trained on as a whole.

    Attributes:
        text: Its text, unchanged.
        source: Where it comes from, for people.
    """

    text: str
    source: str


@dataclass(frozen=True)
class Skipped:
    """Something that was not taken.

    Attributes:
        reason: A short code, such as `binary`.
        example: What a person needs to find it: file and line, or the text's beginning.
    """

    source: str
    reason: str
    num_bytes: int
    example: str


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        name: Path as the user gave it, or within a built-in collection.
    """

    path: Path
    name: str
    num_bytes: int
    modified_ns: int


def list_sources(paths: Sequence[str | Path]) -> list[Source]:
    """All files behind `paths`, folders walked in sorted order, hidden files and folders left out.

    `builtin:python` and its cuts name text that is on every machine with Python. Raises DataError when a path does not
    exist, or when there is no file at all.
    """
    from inkling.data.formats import builtin

    sources: list[Source] = []
    for given in paths:
        if str(given).startswith("builtin:"):
            sources += [_source(path, f"{given}/{name}") for path, name in builtin.list_files(str(given))]
            continue
        path = Path(given)
        if not path.exists():
            raise DataError(
                f"there is no file or folder {path}. Check its spelling; it is looked for from the current folder"
            )
        sources += [_source(file, str(file)) for file in (_walk(path) if path.is_dir() else [path])]
    if not sources:
        raise DataError(f"there are no files in {', '.join(map(str, paths))}. Name a file, or a folder that holds text")
    return sources


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, sorted; linked folders are not entered, so that no loop can arise."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _source(path: Path, name: str) -> Source:
    status = path.stat()
    return Source(path, name, status.st_size, status.st_mtime_ns)


def read_source(source: Source) -> Iterator[Document | Skipped]:
    """The documents of a file, by the format of its suffix; a file of unknown suffix is read as text."""
    from inkling.data import formats
    from inkling.data.formats import builtin

    try:
        prose = source.name.startswith(f"{builtin.PROSE}/")
        reader = builtin.read_prose if prose else formats.for_path(source.path).read
        for item in reader(source.path):
            if isinstance(item, Skipped):
                yield Skipped(
                    source.name, item.reason, item.num_bytes, item.example.replace(str(source.path), source.name)
                )
            else:
                yield Document(item.text, item.source.replace(str(source.path), source.name))
    except OSError as error:
        yield Skipped(source.name, "unreadable", source.num_bytes, f"{source.name}: {error.strerror}")


def read_documents(paths: Sequence[str | Path]) -> Iterator[Document]:
    """Every document behind `paths`, what is skipped left out."""
    for source in list_sources(paths):
        for item in read_source(source):
            if isinstance(item, Document):
                yield item
