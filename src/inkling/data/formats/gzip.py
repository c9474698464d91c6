"""Files compressed by gzip (RFC 1952), of one member or several."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, decompressed

SUFFIXES = (".gz", ".tgz")
IS_CONTAINER = True


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the file inside."""

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from decompressed(file, name, inside, unpacked.read1, {".gz": "", ".tgz": ".tar"})

    return contents(file, name, reading, members, (EOFError, zlib.error, gzip.BadGzipFile))
