"""Files compressed by xz."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, decompressed

SUFFIXES = (".xz", ".txz")
IS_CONTAINER = True


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the file inside."""

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        with lzma.LZMAFile(file) as unpacked:
            yield from decompressed(file, name, inside, unpacked.read1, {".txz": ".tar", ".xz": ""})

    return contents(file, name, reading, members, (EOFError, lzma.LZMAError))
