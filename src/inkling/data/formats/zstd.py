"""Files compressed by Zstandard (RFC 8878), of one frame or several. Read by `zstandard`, an extra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._container import Reading, contents, decompressed
from inkling.errors import MissingExtraError

SUFFIXES = (".zst", ".tzst")
IS_CONTAINER = True

_FED_BYTES = 1024  # at most 32 MB come out of them, before the limit is looked at
_MAX_WINDOW_BYTES = 1 << 27  # what `zstd --long=27` writes; more has to be asked for when unpacking, too


def read(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document | Skipped]:
    """The documents of the file inside. Raises MissingExtraError when zstandard is not installed."""
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "zstd", f"reading {name}") from None

    def members(file: BinaryIO, inside: Reading) -> Iterator[Document | Skipped]:
        frames = _Frames(file, zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES))
        yield from decompressed(file, name, inside, frames.read, {".tzst": ".tar", ".zst": ""})

    return contents(file, name, reading, members, (EOFError, zstandard.ZstdError))


class _Frames:
    """The content of all frames in a file. The library's own stream says nothing when the last one is cut off."""

    def __init__(self, file: BinaryIO, unpacker: Any) -> None:
        self._file = file
        self._unpacker = unpacker
        self._frame = unpacker.decompressobj()
        self._is_inside = False
        self._packed = b""
        self._unpacked = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end. Raises EOFError when the last frame is not complete."""
        while not self._unpacked:
            self._packed = self._packed or self._file.read(_FED_BYTES)
            if not self._packed:
                if self._is_inside:
                    raise EOFError("it ends in the middle of a frame")
                return b""
            self._is_inside = True
            self._unpacked, self._packed = self._frame.decompress(self._packed), b""
            if self._frame.eof:
                self._packed, self._is_inside = self._frame.unused_data, False
                self._frame = self._unpacker.decompressobj()
        data, self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return data
