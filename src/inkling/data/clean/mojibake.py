"""Repair of mojibake: UTF-8 that somebody read as Windows-1252 or Latin-1, such as `cafÃ©` for `café`.

A *sequence* is a group of characters whose single-byte codes are one well-formed UTF-8 character (RFC 3629); a *run* is
sequences without a gap. Text in which sequences come about by chance (`daß“`, `NESTLÉ®`) is told apart by how unlikely
they are in writing and by what else is in the text.
"""

from __future__ import annotations

import re


def _byte_of_character() -> dict[int, int]:
    """Code point -> byte, for Windows-1252 with its five gaps filled as the WHATWG Encoding Standard does."""
    table = {byte: byte for byte in range(0x80, 0x100)}
    for byte in range(0x80, 0xA0):
        try:
            table[ord(bytes([byte]).decode("cp1252"))] = byte
        except UnicodeDecodeError:
            continue
    return table


_BYTE_OF = _byte_of_character()
_NEXT = "[" + "".join(re.escape(chr(point)) for point, byte in _BYTE_OF.items() if 0x80 <= byte < 0xC0) + "]"
_SEQUENCE = f"(?:[Â-ß]{_NEXT}|[à-ï]{_NEXT}{{2}}|[ð-ô]{_NEXT}{{3}})"
_RUN = re.compile(f"{_SEQUENCE}+")
_CANDIDATE = re.compile(rb"\xc3[\x82-\xb4](?:\xc2[\x80-\xbf]|[\xc5\xc6\xcb].|\xe2[\x80\x82\x84].)", re.DOTALL)
"""The beginning of a sequence in UTF-8, for a quick look."""

_CERTAIN = re.compile(
    f"(?:{_SEQUENCE}){{3}}"
    r"|â€|â‚¬|â„¢|ï»¿|ï¿½|ðŸ"
    r"|(?<![A-ZÀ-Þ])[ÂÃ][\x80-\xaa\xac-\xba\xbc-\xbf‰Š‹ŒŽšœžŸƒˆ˜¡]"
)
"""Nobody writes this: three sequences in a row, punctuation in three parts, Â or Ã before a symbol."""
_CAPITALS = re.compile(r"[A-Z][À-Þ][®™©°”’“‘…—–»›•](?!\w)")
"""A word in capitals that ends with an accented one, before a sign or a closing quote."""
_MANY = 3


def repair_mojibake(text: str) -> tuple[str, int]:
    """The text with such runs put right, and their number.

    A run that nobody would write is repaired wherever it is. Others are repaired where the text has several, or one of
    the first kind, and no character beyond ASCII stands outside of them: such a character says that the text was read
    correctly.
    """
    if text.isascii() or not _CANDIDATE.search(text.encode("utf-8", "surrogatepass")):
        return text, 0
    runs = [match for match in _RUN.finditer(text) if _decode(match.group()) is not None]
    if not runs:
        return text, 0
    certain = [match for match in runs if _CERTAIN.search(text, max(match.start() - 1, 0), match.end())]
    if (certain or len(runs) >= _MANY) and _is_all_mojibake(text):
        certain = runs
    pieces, end = [], 0
    for match in certain:
        pieces += [text[end : match.start()], _decode(match.group()) or match.group()]
        end = match.end()
    return "".join([*pieces, text[end:]]), len(certain)


def _decode(run: str) -> str | None:
    """The run as it was meant; None when its bytes are not UTF-8 (overlong forms, surrogates)."""
    try:
        return bytes(_BYTE_OF[ord(character)] for character in run).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_all_mojibake(text: str) -> bool:
    """No character beyond ASCII stands outside of runs, and no run can be the end of a word in capitals."""
    return _RUN.sub("", text).isascii() and not _CAPITALS.search(text)
