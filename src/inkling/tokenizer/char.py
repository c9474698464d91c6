"""The character level, as a byte-level BPE whose merges never leave a character.

So it spells every string, also with characters it never saw, and needs nothing special anywhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def character_merges(texts: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Merges that build each multi-byte character of the texts from its bytes, left to right, frequent ones first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    merges: dict[tuple[bytes, bytes], None] = {}
    for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        encoded = character.encode()
        for length in range(1, len(encoded)):
            merges[encoded[:length], encoded[length : length + 1]] = None
    return list(merges)
