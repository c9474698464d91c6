"""The printable stand-in of each byte in the files of a byte-level BPE, as GPT-2 chose them.

Printable Latin-1 bytes stand for themselves; the other 68 take the characters from U+0100 on, in order.
"""

from __future__ import annotations


def _stand_ins() -> dict[int, str]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


CHARACTER_OF_BYTE = _stand_ins()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
