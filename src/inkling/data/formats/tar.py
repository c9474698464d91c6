"""Tar archives: each regular file in them is read as if it lay in a folder. Nothing is written anywhere."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, is_hidden, refused, stream

SUFFIXES = (".tar",)
IS_CONTAINER = True


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the files inside, in the order of the archive."""
    from inkling.data import formats

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                bad = refused(name, member.name, member.size)
                if bad:
                    yield bad
                elif member.isreg() and not is_hidden(member.name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield from formats.read(stream(content.read, inside), f"{name}/{member.name}", inside)

    damaged = (tarfile.TarError, EOFError, ValueError, OverflowError, IndexError)
    return contents(file, name, reading, members, damaged)
