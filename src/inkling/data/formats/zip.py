"""Zip archives: each file in them is read as if it lay in a folder. Nothing is written anywhere."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, is_hidden, refused, stream

SUFFIXES = (".zip",)
IS_CONTAINER = True
NEEDS_SEEKING = True

_ENCRYPTED = 0x1
_ERRORS = (EOFError, OSError, OverflowError, RuntimeError, ValueError, struct.error)


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the files inside, in the order of the archive."""

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                bad = refused(name, member.filename, member.file_size)
                if bad:
                    yield bad
                elif member.flag_bits & _ENCRYPTED:
                    yield Skipped("encrypted", member.file_size, f"{name}/{member.filename}: has a password")
                elif not member.is_dir() and not is_hidden(member.filename):
                    yield from _member(archive, member, name, inside)

    return contents(file, name, reading, members, (zipfile.BadZipFile, *_ERRORS))


def _member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, inside: Reading
) -> Iterator[Document | Skipped]:
    """One file; when it is damaged, the others are still read."""
    from inkling.data import formats

    place = f"{name}/{member.filename}"
    try:
        with archive.open(member) as content:
            yield from formats.read(stream(content.read, inside), place, inside)
    except (zipfile.BadZipFile, zlib.error, *_ERRORS) as error:
        yield Skipped("damaged_archive", member.file_size, f"{place}: {' '.join(str(error).split())[:150]}")
