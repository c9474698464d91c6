"""Documents, and what they are read from: sources, parts of them, units of work.

What cannot be read is passed on with its reason, never lost.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from inkling.data import remote
from inkling.errors import DataError

SEPARATOR_LINE = "<|endoftext|>"
UNIT_BYTES = 16 << 20
"""A larger file is read in parts of about this, by as many processes as there are."""
_BORDER_WINDOW_BYTES = 1 << 20
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that say that there is no room."""
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}


@dataclass
class Document:
    """A text that is trained on as a whole. The fields are those of datatrove's `Document`.

    Attributes:
        text: Its text.
        id: Where it comes from, for people: the file, and a place in it.
        metadata: What else is known about it, JSON-able: the other fields of its row.
        text_field: The field of its row that was taken for the text, where that was guessed.
    """

    text: str
    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    text_field: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Skipped:
    """Something that was not taken.

    Attributes:
        reason: A short code, such as `binary`.
        num_bytes: Its size.
        example: What a person needs to find it: file and line, and the text's beginning or what is wrong.
    """

    reason: str
    num_bytes: int
    example: str


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        location: Path or URL.
        name: Path as the user gave it, or within a built-in collection.
        version: Time of its last change in nanoseconds; of a remote file, a number that changes with it.
    """

    location: str
    name: str
    num_bytes: int
    version: int

    @property
    def is_remote(self) -> bool:
        """Whether it lies behind a URL."""
        return remote.is_remote(self.location)

    def open(self) -> BinaryIO:
        """Its bytes."""
        if self.is_remote:
            return remote.open_file(self.location)
        return Path(self.location).open("rb", buffering=_BORDER_WINDOW_BYTES)

    def has_changed(self) -> bool:
        """Whether a file of this machine is no longer the one that was listed."""
        if self.is_remote:
            return False
        try:
            status = Path(self.location).stat()
        except OSError:
            return True
        return (status.st_size, status.st_mtime_ns) != (self.num_bytes, self.version)


@dataclass(frozen=True)
class Part:
    """A source, or a part of a large one that begins and ends between documents.

    Attributes:
        start: First byte.
        stop: Byte after the last one; None for the end of the file.
        first_line: Number of the first line, from 1.
    """

    source: Source
    start: int = 0
    stop: int | None = None
    first_line: int = 1

    @property
    def num_bytes(self) -> int:
        return (self.source.num_bytes if self.stop is None else self.stop) - self.start


Unit = tuple[Part, ...]
"""What one process reads at a time: neighbouring parts, together about UNIT_BYTES."""


def list_sources(paths: Sequence[str | Path]) -> list[Source]:
    """All files behind `paths`, folders walked in sorted order, hidden files and folders left out.

    `builtin:python` and its cuts name text that is on every machine with Python; URLs and `hf:OWNER/NAME` name files
    elsewhere. Raises DataError when a path does not exist, when a folder cannot be listed, or when there is no file.
    """
    from inkling.data.formats import builtin

    sources: list[Source] = []
    for given in paths:
        if str(given).startswith("builtin:"):
            sources += [_source(path, f"{given}/{name}") for path, name in builtin.list_files(str(given))]
            continue
        if remote.is_remote(str(given)):
            found = remote.list_files(str(given))
            sources += [Source(file.url, file.url, file.num_bytes, file.version) for file in found]
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
    """Files below a folder, sorted; linked folders are not entered, so that no loop can arise.

    Of a data set that `datasets` saved there, the rows are read, of its training part only.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot list {error.filename}: {error.strerror}. Give yourself access, or name other paths")

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        if "dataset_dict.json" in names and "train" in folders:  # a data set that Hugging Face's `datasets` saved
            folders[:], names = ["train"], []
        elif "dataset_info.json" in names:
            names = [name for name in names if name.endswith(".arrow")]
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _source(path: Path, name: str) -> Source:
    status = path.stat()
    return Source(str(path), name, status.st_size, status.st_mtime_ns)


# ---------------------------------------------------------------- parts and units


def units_of(sources: Iterable[Source]) -> Iterator[Unit]:
    """All that is to be read, in order. It depends on the sources alone, not on who reads them."""
    unit: list[Part] = []
    num_bytes = 0
    for part in (part for source in sources for part in parts_of(source)):
        if unit and num_bytes + part.num_bytes > UNIT_BYTES:
            yield tuple(unit)
            unit, num_bytes = [], 0
        unit.append(part)
        num_bytes += part.num_bytes
    if unit:
        yield tuple(unit)


def parts_of(source: Source) -> Iterator[Part]:
    """A source whole, or in parts when it is large and its format can be cut."""
    from inkling.data import formats

    module = formats.for_name(source.name)
    if source.num_bytes <= UNIT_BYTES or not hasattr(module, "border"):
        yield Part(source)
        return
    try:
        file = source.open()
    except OSError:  # said when it is read
        yield Part(source)
        return
    start, first_line = 0, 1
    with file:
        if b"\0" in file.read(_BORDER_WINDOW_BYTES):  # no text
            yield Part(source)
            return
        while start < source.num_bytes:
            stop = min(start + UNIT_BYTES, source.num_bytes)
            if stop < source.num_bytes:
                stop = _border_after(file, stop, module)
            yield Part(source, start, stop, first_line)
            if not source.is_remote:  # or all of it would be fetched twice
                file.seek(start)
                first_line += _count_lines(file, stop - start)
            start = stop


def _border_after(file: BinaryIO, start: int, module: ModuleType) -> int:
    """The first border between documents from `start` on, or the end of the file."""
    file.seek(start)
    while data := file.read(_BORDER_WINDOW_BYTES):
        found = module.border(data)
        if found is not None:
            return start + int(found)
        start += len(data)
    return start


def _count_lines(file: BinaryIO, num_bytes: int) -> int:
    count = 0
    while num_bytes > 0 and (data := file.read(min(num_bytes, _BORDER_WINDOW_BYTES))):
        count += data.count(b"\n")
        num_bytes -= len(data)
    return count


def read_part(part: Part, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of a part, by the format of its name; a file of unknown suffix is read as text.

    Args:
        text_field: The field of rows that holds the text; guessed when not given.
    """
    from inkling.data import formats

    source = part.source
    reading = formats.Reading(text_field)
    try:
        with source.open() as file:
            if part.stop is None:
                yield from formats.read(file, source.name, reading)
            else:
                stream = io.BufferedReader(_Range(file, part.start, part.num_bytes), _BORDER_WINDOW_BYTES)
                place = f"{source.name}@{part.start}" if source.is_remote and part.start else source.name
                yield from formats.read(stream, source.name, reading, place=place, first_line=part.first_line)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        yield Skipped("unreadable", part.num_bytes, f"{source.name}: {error.strerror or error}")


class _Range(io.RawIOBase):
    """A part of a file that reads like a whole one."""

    def __init__(self, file: BinaryIO, start: int, num_bytes: int) -> None:
        file.seek(start)
        self._file = file
        self._left = num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def read_source(source: Source, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of a source."""
    for part in parts_of(source):
        yield from read_part(part, text_field)


def read_documents(paths: Sequence[str | Path], text_field: str | None = None) -> Iterator[Document]:
    """Every document behind `paths`, what is skipped left out."""
    for source in list_sources(paths):
        for item in read_source(source, text_field):
            if isinstance(item, Document):
                yield item
