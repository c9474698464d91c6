"""Bytes to text, the same way for every format."""

from __future__ import annotations

from inkling.data.documents import Skipped

MAX_INVALID_SHARE = 0.001
"""A text with more bytes than this that are no UTF-8 is in another encoding, or no text."""


def decode(data: bytes, name: str) -> str | Skipped:
    """UTF-8 text, or why it is none: `binary` or `invalid_utf8`. A few stray bytes become U+FFFD."""
    if b"\0" in data:
        return Skipped("binary", len(data), f"{name}: holds zero bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = data.decode("utf-8-sig", errors="replace")
        mark = "\N{REPLACEMENT CHARACTER}"
        invalid = text.count(mark) - data.count(mark.encode())  # some may have been there
        if invalid > MAX_INVALID_SHARE * len(data):
            example = f"{name}: {invalid} bytes are no UTF-8, the first at byte {error.start}"
            return Skipped("invalid_utf8", len(data), example)
        return text
