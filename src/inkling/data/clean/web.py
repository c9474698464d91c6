"""Tests for pages from the web, with the published thresholds of Gopher (Rae et al., arXiv:2112.11446, table A1) and C4
(Raffel et al., arXiv:1910.10683, section 2.2). Rules about words are for writing that parts words by white space."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"\S+")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?:\s|$)")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_BULLET = re.compile(r"^\s*[-*•‣●○▪·]\s", re.MULTILINE)
_STOP_WORDS = re.compile(r"\b(?:the|be|to|of|and|that|have|with)\b", re.IGNORECASE)


def _has_spaces(text: str) -> bool:
    """Whether words are parted by white space: less than a fifth of the beginning is Chinese, Japanese, Thai, …"""
    beginning = text[:2000]
    return len(_UNSPACED.findall(beginning)) < 0.2 * len(beginning)


def is_lorem_ipsum(text: str) -> bool:
    """Filling text (C4)."""
    return "lorem ipsum" in text[:100_000].lower()


def has_curly_braces(text: str) -> bool:
    """Code in a page (C4)."""
    return "{" in text


def has_few_sentences(text: str) -> bool:
    """Fewer than five sentences (C4)."""
    ends = _SENTENCE_END.finditer(text)
    return sum(1 for _ in zip(range(5), ends, strict=False)) < 5


def has_unusual_number_of_words(text: str) -> bool:
    """Fewer than 50 words or more than 100,000 (Gopher); one character of unspaced writing counts as half a word."""
    if _has_spaces(text):
        return not 50 <= len(text.split()) <= 100_000
    return not 100 <= len(text) <= 200_000


def has_unusual_words(text: str) -> bool:
    """Words of on average less than 3 or more than 10 characters (Gopher)."""
    words = text.split()
    return _has_spaces(text) and bool(words) and not 3 <= sum(map(len, words)) / len(words) <= 10


def has_many_symbols(text: str) -> bool:
    """More than one hash or ellipsis for ten words (Gopher)."""
    num_words = len(text.split())
    return _has_spaces(text) and max(text.count("#"), text.count("...") + text.count("…")) > 0.1 * num_words


def is_bullets(text: str) -> bool:
    """More than 90 % of the lines begin with a bullet (Gopher)."""
    lines = [line for line in text.split("\n") if line.strip()]
    return bool(lines) and len(_BULLET.findall(text)) > 0.9 * len(lines)


def is_ellipses(text: str) -> bool:
    """More than 30 % of the lines end with an ellipsis (Gopher)."""
    lines = [line.rstrip() for line in text.split("\n") if line.strip()]
    return bool(lines) and sum(line.endswith(("...", "…")) for line in lines) > 0.3 * len(lines)


def has_words_without_letters(text: str) -> bool:
    """More than 20 % of the words have no letter (Gopher)."""
    words = text.split()
    return bool(words) and sum(_LETTER.search(word) is not None for word in words) < 0.8 * len(words)


def has_no_stop_words(text: str) -> bool:
    """Fewer than two of eight frequent English words, in text of ASCII (Gopher)."""
    return text.isascii() and sum(1 for _ in zip(range(2), _STOP_WORDS.finditer(text), strict=False)) < 2


def repeats_lines(text: str) -> bool:
    """More than 30 % of lines or paragraphs, or 20 % of their characters, stand in it before (Gopher)."""
    for separator in ("\n", "\n\n"):
        parts = [part for part in map(str.strip, text.split(separator)) if part]
        if len(parts) < 2:
            continue
        again = Counter(parts)
        num_again = len(parts) - len(again)
        characters_again = sum(len(part) * (count - 1) for part, count in again.items())
        if num_again > 0.3 * len(parts) or characters_again > 0.2 * sum(map(len, parts)):
            return True
    return False


_TOP_SHARES = {2: 0.20, 3: 0.18, 4: 0.16}


def repeats_words(text: str) -> bool:
    """The most frequent run of 2, 3 or 4 words makes up more than 20, 18 or 16 % of the characters (Gopher)."""
    words = text.split()
    num_characters = sum(map(len, words))
    for size, share in _TOP_SHARES.items():
        runs = Counter(zip(*(words[offset:] for offset in range(size)), strict=False))
        if runs:
            run, count = runs.most_common(1)[0]
            if count > 1 and count * sum(map(len, run)) > share * num_characters:
                return True
    return False
