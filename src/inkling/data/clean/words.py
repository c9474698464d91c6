"""Words of a text, for the rules that count them."""

from __future__ import annotations

import re
from functools import lru_cache

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)


@lru_cache(maxsize=1)
def words_of(text: str) -> list[str]:
    """What stands between white space. The last answer is kept, for the next rule asks about the same text."""
    return text.split()


@lru_cache(maxsize=1)
def is_unspaced(text: str) -> bool:
    """Mostly in a script that puts no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan).

    Rules that count words say nothing about it.
    """
    if text.isascii():
        return False
    return sum(map(len, _UNSPACED.findall(text))) > 0.2 * len(text)
