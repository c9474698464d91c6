"""Changes of characters: Unicode form, line ends, control characters, characters that nobody sees."""

from __future__ import annotations

import re
import unicodedata

_C0 = bytes([*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F])
_NOT_C0 = re.compile(rb"\xc2[\x80-\x9f]|\xed[\xa0-\xbf]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_INVISIBLE = re.compile("\u00ad|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b")


def normalise(text: str) -> str:
    """Unicode NFC, `\\n` line ends, no control characters but tab, line and form feed, no lone surrogates."""
    for change in (unify_line_ends, remove_control, compose):
        text, _ = change(text)
    return text


def unify_line_ends(text: str) -> tuple[str, int]:
    """`\\n` for `\\r\\n`, `\\r` and the NEL of ISO 6429, and how many there were."""
    count = 0
    if "\r" in text:
        unified = text.replace("\r\n", "\n")
        count = len(text) - len(unified) + unified.count("\r")
        text = unified.replace("\r", "\n")
    if not text.isascii() and "\x85" in text:
        count += text.count("\x85")
        text = text.replace("\x85", "\n")
    return text, count


def compose(text: str) -> tuple[str, int]:
    """Unicode normalisation form C (UAX #15), and 1 if that is another text."""
    if text.isascii():
        return text, 0
    composed = unicodedata.normalize("NFC", text)
    return composed, int(composed != text)


def remove_control(text: str) -> tuple[str, int]:
    """The text without the control characters of ISO 6429 and lone surrogates, and how many there were."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data.translate(None, _C0)) == len(data) and (text.isascii() or not _NOT_C0.search(data)):
        return text, 0
    return _CONTROL.subn("", text)


def remove_invisible(text: str) -> tuple[str, int]:
    """The text without soft hyphens (U+00AD) and zero-width spaces (U+200B), and how many there were.

    They say where a line may break. In Thai, Lao, Burmese and Khmer a zero-width space stands between words and is
    kept.
    """
    if text.isascii() or ("\u00ad" not in text and "\u200b" not in text):
        return text, 0
    return _INVISIBLE.subn("", text)
