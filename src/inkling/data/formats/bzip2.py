"""Files compressed by bzip2."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, decompressed

SUFFIXES = (".bz2", ".tbz2")
IS_CONTAINER = True


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the file inside."""

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        with bz2.BZ2File(file) as unpacked:
            yield from decompressed(file, name, inside, unpacked.read1, {".tbz2": ".tar", ".bz2": ""})

    return contents(file, name, reading, members, (EOFError, OSError, ValueError))
