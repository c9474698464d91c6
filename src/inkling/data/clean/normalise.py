"""Characters as they were meant: Unicode, line ends, control characters, mojibake."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")  # \x85 is a line end
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")

# UTF-8 read as Windows-1252: a lead byte of two, three or four, and as many that continue it, each as the character
# that this code page shows for it.
_SHOWN = {byte: bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in range(0x80, 0x100)}
_BYTE_OF = {shown: byte for byte, shown in _SHOWN.items()}
_CONTINUES = "[" + re.escape("".join(_SHOWN[byte] for byte in range(0x80, 0xC0))) + "]"
_LEADS = {
    1: "".join(_SHOWN[byte] for byte in range(0xC2, 0xE0)),
    2: "".join(_SHOWN[byte] for byte in range(0xE0, 0xF0)),
    3: "".join(_SHOWN[byte] for byte in range(0xF0, 0xF5)),
}
_GARBLED = re.compile("|".join(f"[{re.escape(leads)}]{_CONTINUES}{{{count}}}" for count, leads in _LEADS.items()))
_MAX_ROUNDS = 3  # text is garbled twice now and then, hardly ever oftener


def characters(text: str, counts: Counter[str]) -> str:
    """Unicode NFC, `\\n` line ends, no control characters but tab, line and form feed."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _CONTROL.search(text):
        text, count = _CONTROL.subn("", text)
        counts["control_character"] += count
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.replace("\x85", "\n"))


def mojibake(text: str, counts: Counter[str]) -> str:
    """UTF-8 that was read as Windows-1252 read rightly: `donâ€™t` → `don’t`, `cafÃ©` → `café`.

    Only where the characters spell valid UTF-8, and only if a text has two such places or one of three characters, as
    one such pair may be meant. It comes before control characters are removed: some of them are part of garbled text.
    """
    for _ in range(_MAX_ROUNDS):
        if text.isascii():
            return text
        found = _GARBLED.findall(text)
        if not found or (len(found) == 1 and len(found[0]) == 2):
            return text
        repaired = _GARBLED.sub(_repair, text)
        if repaired == text:
            return text
        counts["mojibake"] += len(found)
        text = repaired
    return text


def _repair(match: re.Match[str]) -> str:
    try:
        return bytes(_BYTE_OF[character] for character in match.group()).decode()
    except UnicodeDecodeError:
        return match.group()


def invisible(text: str, counts: Counter[str]) -> str:
    """No soft hyphens, zero-width spaces, word joiners and byte-order marks, which only confuse a tokenizer."""
    if text.isascii() or not _INVISIBLE.search(text):
        return text
    text, count = _INVISIBLE.subn("", text)
    counts["invisible_character"] += count
    return unicodedata.normalize("NFC", text)
