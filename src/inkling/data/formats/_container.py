"""What compressed files and archives share: limits, and reading what is inside."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, cast

from inkling.data.documents import Document, Skipped

MAX_DEPTH = 4
MAX_BYTES = 1 << 30
MAX_RATIO = 300
"""What is inside a file of this machine may be as large as the larger of 1 GiB and 300 times the file."""
_IN_MEMORY_BYTES = 16 << 20


class ArchiveBombError(Exception):
    """More comes out of a file than its limit allows."""


class Budget:
    """How many bytes may still come out of the outermost file."""

    def __init__(self, num_bytes: int) -> None:
        self.limit = num_bytes
        self.left = num_bytes

    def spend(self, num_bytes: int) -> None:
        """Raises ArchiveBombError when there is no more left."""
        self.left -= num_bytes
        if self.left < 0:
            raise ArchiveBombError


@dataclass(frozen=True)
class Reading:
    """Where a file lies, and what was said about all files.

    Attributes:
        text_field: The field of rows that holds the text; guessed when not given.
        depth: How many containers it is in.
        budget: What may come out of the outermost of them.
    """

    text_field: str | None = None
    depth: int = 0
    budget: Budget | None = None


def contents(
    file: BinaryIO,
    name: str,
    reading: Reading,
    members: Callable[[BinaryIO, Reading], Iterator[Document | Skipped]],
    damaged: tuple[type[Exception], ...],
) -> Iterator[Document | Skipped]:
    """The documents inside a container, its limits held and its damages named.

    Args:
        members: Reads what is inside; the `Reading` that it gets is for the files there.
        damaged: Errors by which the library that unpacks it says that it is damaged.
    """
    if reading.depth >= MAX_DEPTH:
        yield Skipped("nested_too_deep", 0, f"{name}: more than {MAX_DEPTH} archives in each other")
        return
    budget = reading.budget or Budget(max(MAX_BYTES, MAX_RATIO * _size(file)))
    inside = replace(reading, depth=reading.depth + 1, budget=budget)
    try:
        yield from members(file, inside)
    except ArchiveBombError:
        if reading.budget is not None:
            raise
        yield Skipped("archive_bomb", budget.limit, f"{name}: more than {budget.limit / 1e6:.0f} MB come out of it")
    except damaged as error:
        yield Skipped("damaged_archive", _size(file), f"{name}: {' '.join(str(error).split())[:150]}")


def stream(read: Callable[[int], bytes], reading: Reading) -> BinaryIO:
    """A stream of unpacked bytes that spends the budget."""
    assert reading.budget is not None
    return cast(BinaryIO, io.BufferedReader(_Unpacked(read, reading.budget), 1 << 17))


class _Unpacked(io.RawIOBase):
    def __init__(self, read: Callable[[int], bytes], budget: Budget) -> None:
        self._read = read
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)


def decompressed(
    file: BinaryIO, name: str, reading: Reading, read: Callable[[int], bytes], suffixes: dict[str, str]
) -> Iterator[Document | Skipped]:
    """The documents of the one file in a compressed file. `suffixes` says what each suffix leaves: `.tgz` → `.tar`."""
    from inkling.data import formats

    suffix = next(suffix for suffix in suffixes if name.lower().endswith(suffix))
    yield from formats.read(stream(read, reading), name[: -len(suffix)] + suffixes[suffix], reading)


def refused(name: str, member: str, num_bytes: int) -> Skipped | None:
    """Why a member of an archive is not read because of its name; None when it is fine."""
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if ".." in parts or PurePosixPath(member).is_absolute() or PureWindowsPath(member).drive:
        return Skipped("unsafe_path", num_bytes, f"{name}: {member[:150]!r} leads out of the archive")
    return None


def is_hidden(member: str) -> bool:
    """Whether a member is left out as hidden files of folders are."""
    return any(part.startswith(".") or part in ("__MACOSX", "__pycache__") for part in PurePosixPath(member).parts)


@contextmanager
def seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """The same content in a file that can be read from any place."""
    if file.seekable():
        yield file
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _size(file: BinaryIO) -> int:
    """Bytes of a file; 0 when they cannot be told."""
    if not file.seekable():
        return 0
    here = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(here)
    return size
