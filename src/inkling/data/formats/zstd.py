"""Files compressed by Zstandard (RFC 8878), of one frame or several. Read by `zstandard`, an extra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, decompressed
from inkling.errors import MissingExtraError

SUFFIXES = (".zst", ".tzst")
IS_CONTAINER = True

_MAX_WINDOW_BYTES = 1 << 27  # what `zstd --long=27` writes; more has to be asked for when unpacking, too


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the file inside. Raises MissingExtraError when zstandard is not installed."""
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "zstd", f"reading {name}") from None

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        with unpacker.stream_reader(file, read_across_frames=True, closefd=False) as unpacked:
            yield from decompressed(file, name, inside, unpacked.read, {".tzst": ".tar", ".zst": ""})

    return contents(file, name, reading, members, (EOFError, zstandard.ZstdError))
