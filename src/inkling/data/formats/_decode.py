"""Bytes to text, the same way for every format."""

from __future__ import annotations

import codecs

from inkling.data.documents import Skipped

MAX_INVALID_SHARE = 0.001
"""A text with more bytes than this that are no UTF-8 is in another encoding, or no text."""
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def wide_encoding(data: bytes) -> str | None:
    """`utf-16` or `utf-32` when the data begins with the mark of one of them."""
    return next((name for mark, name in _WIDE.items() if data.startswith(mark)), None)


def decode(data: bytes, name: str) -> str | Skipped:
    """The text of UTF-8, or of UTF-16 and UTF-32 with their mark; or why there is none: `binary` or `invalid_utf8`.

    A few stray bytes become U+FFFD.
    """
    wide = wide_encoding(data)
    if wide:
        try:
            return data.decode(wide)
        except UnicodeDecodeError:
            pass
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
