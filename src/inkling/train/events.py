"""TensorBoard's event files, written without TensorBoard.

The format is a TFRecord file of `tensorflow.Event` protocol buffers: length, masked CRC of it, record, masked CRC of it
(tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto). Scalars are all that is written.
"""

from __future__ import annotations

import os
import platform
import struct
import time
from pathlib import Path

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_MASK = 0xA282EAD8


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _make_table()


class EventFile:
    """A new event file in `folder`, to which scalars are appended.

    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{platform.node()}.{os.getpid()}"
        self._file = (folder / name).open("ab")
        self._write(_double(1, time.time()) + _bytes(3, b"brain.Event:2"))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """One point of the curve `tag`."""
        summary = _bytes(1, _bytes(1, tag.encode()) + _float(2, value))
        self._write(_double(1, time.time()) + _varint(2 << 3) + _varint(step) + _bytes(5, summary))

    def restart(self, step: int) -> None:
        """What was written for `step` and later no longer counts."""
        started = _varint(1 << 3) + _varint(1)
        self._write(_double(1, time.time()) + _varint(2 << 3) + _varint(step) + _bytes(7, started))

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + struct.pack("<I", masked_crc(length)) + event + struct.pack("<I", masked_crc(event)))


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and offset so that the CRC of data that holds CRCs is no fixed point."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
