"""Tests for texts that nobody should train on, mild enough for people's notes, books and lists."""

from __future__ import annotations

import re

import numpy as np

_HTTP_ERROR = re.compile(
    r"\s*(?:<[^>]{0,200}>\s*)*(?:HTTP\s*)?(?:error\s*)?[45]\d\d:?\s*"
    r"(?:not found|forbidden|bad gateway|internal server error|service unavailable|too many requests|unauthorized)",
    re.IGNORECASE,
)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_-]+")
_LONG_WORD_CHARACTERS = 60
_BYTE_TABLE = re.compile(r"(?:\\x[0-9a-fA-F]{2}){100,}|(?:0x[0-9a-fA-F]{1,8},?\s*){200,}")
_MIN_TABLE_ENTRIES = 100

_KINDS = np.zeros(256, np.uint8)
"""Of a byte of UTF-8: 1 for letters and white space, 1 also for all that is not ASCII, 0 for the rest."""
_KINDS[[byte for byte in range(128) if chr(byte).isalpha() or chr(byte).isspace()]] = 1
_KINDS[128:] = 1


def is_nothing(text: str) -> bool:
    """No characters at all."""
    return not text


def is_empty(text: str) -> bool:
    """Nothing but white space."""
    return not text or text.isspace()


def is_http_error(text: str) -> bool:
    """A page that says it is not there, saved as if it were the text."""
    return len(text) < 2000 and _HTTP_ERROR.match(text) is not None


def is_encoded(text: str) -> bool:
    """More than half of it is base64, on one line or wrapped, or tables of numbers."""
    if len(text) < 800:
        return False
    if max(text.count("0x"), text.count("\\x")) >= _MIN_TABLE_ENTRIES:
        in_tables = sum(len(match.group()) for match in _BYTE_TABLE.finditer(text))
        if in_tables > len(text) / 2:
            return True
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.diff(np.flatnonzero(data <= ord(" ")), prepend=-1, append=len(data)) - 1
    if int(lengths[lengths >= _LONG_WORD_CHARACTERS].sum()) <= len(data) / 2:
        return False
    long = (word for word in text.split() if len(word) >= _LONG_WORD_CHARACTERS)
    return sum(len(word) for word in long if _BASE64.fullmatch(word)) > len(text) / 2


def is_minified(text: str) -> bool:
    """Code in which the average line is longer than anyone writes."""
    return len(text) > 2000 and len(text) / (text.count("\n") + 1) > 300


def is_symbols(text: str) -> bool:
    """Less than a third of it is letters, white space or writing that is not ASCII."""
    if len(text) <= 200:
        return False
    kinds = _KINDS[np.frombuffer(text.encode(), np.uint8)]
    return int(np.count_nonzero(kinds)) < len(kinds) / 3


def is_repetitive(text: str) -> bool:
    """More than 70 % of the lines stand in it more than once (Gopher, arXiv:2112.11446: 30 %, for web pages)."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return len(lines) >= 20 and len(set(lines)) < 0.3 * len(lines)
