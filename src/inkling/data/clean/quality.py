"""Rules about the quality of web text: Gopher (arXiv:2112.11446, A.1.1) and C4 (arXiv:1910.10683, section 2.2).

A word is what stands between white space. Rules that count words keep text in scripts that are written without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from inkling.data.clean.words import is_unspaced, words_of

_STOP_WORDS = (
    frozenset({"the", "be", "to", "of", "and", "that", "have", "with"}),  # English, Gopher's
    frozenset({"der", "die", "das", "und", "ist", "nicht", "ein", "zu"}),  # German
    frozenset({"de", "het", "een", "van", "en", "dat", "niet", "is"}),  # Dutch
    frozenset({"di", "che", "la", "il", "un", "per", "non", "con"}),  # Italian
    frozenset({"de", "que", "la", "el", "en", "los", "un", "por"}),  # Spanish
    frozenset({"le", "la", "les", "de", "et", "un", "que", "des"}),  # French
    frozenset({"yang", "dan", "di", "dengan", "untuk", "ini", "itu", "dari"}),  # Indonesian, Malay
    frozenset({"na", "ya", "wa", "kwa", "ni", "katika", "za", "la"}),  # Swahili
    frozenset({"ang", "ng", "sa", "mga", "na", "ay", "at", "si"}),  # Tagalog
    frozenset({"et", "in", "est", "non", "ad", "ut", "cum", "qui"}),  # Latin
)
_SENTENCE_END = re.compile(r"""[.!?]["'”’)\]]*(?:\s|$)|[。！？।؟۔።։]""")
_LETTER = re.compile(r"[^\W\d_]")


def has_wrong_length(text: str) -> bool:
    """Fewer than 50 or more than 100,000 words (Gopher)."""
    return not is_unspaced(text) and not 50 <= len(words_of(text)) <= 100_000


def has_odd_words(text: str) -> bool:
    """The mean length of words is outside of 3 to 10 characters (Gopher)."""
    words = words_of(text)
    return bool(words) and not is_unspaced(text) and not 3 <= sum(map(len, words)) / len(words) <= 10


def has_many_symbols(text: str, *, at_most: float = 0.1, at_least: int = 1) -> bool:
    """More hash signs or more ellipses than a share `at_most` of the words (Gopher: 0.1). Fewer than `at_least` do not
    count."""
    most = max(text.count("#"), text.count("...") + text.count("…"))
    if most < at_least or len(text[: 20 * most].split()) > most / at_most + 1 or is_unspaced(text):
        return False  # the second: the beginning has enough words already, so the rest need not be split
    return most > at_most * len(words_of(text))


def has_many_bullets(text: str) -> bool:
    """More than 90 % of the lines begin with a bullet (Gopher)."""
    lines = [line for line in map(str.lstrip, text.split("\n")) if line]
    return sum(line.startswith(("•", "-", "*", "‣", "◦")) for line in lines) > 0.9 * len(lines)


def has_many_ellipses(text: str, *, at_most: float = 0.3, at_least: int = 1) -> bool:
    """More than 30 % of the lines end with an ellipsis (Gopher). Fewer than `at_least` lines are not judged."""
    if "..." not in text and "…" not in text:
        return False
    lines = [line for line in map(str.rstrip, text.split("\n")) if line]
    return len(lines) >= at_least and sum(line.endswith(("...", "…")) for line in lines) > at_most * len(lines)


def has_few_alphabetic_words(text: str) -> bool:
    """Less than 80 % of the words have a letter (Gopher)."""
    words = words_of(text)
    with_letter = sum(word.isalpha() or _LETTER.search(word) is not None for word in words)
    return not is_unspaced(text) and with_letter < 0.8 * len(words)


def has_few_stop_words(text: str) -> bool:
    """Fewer than two of the most frequent words of a language (Gopher, for English): lists of keywords.

    Judged is text of which less than 0.2 % is beyond ASCII, against languages that are written so; other text is kept.
    """
    if len(text.encode("ascii", "ignore")) < 0.998 * len(text):
        return False
    words = {word.strip(".,;:!?\"'()").lower() for word in set(words_of(text))}
    return all(len(words & stop_words) < 2 for stop_words in _STOP_WORDS)


def has_lorem_ipsum(text: str) -> bool:
    """Text that only fills a page (C4)."""
    return "lorem ipsum" in text.lower()


def has_curly_brace(text: str) -> bool:
    """Code, which in web text is seldom meant (C4)."""
    return "{" in text


def has_few_sentences(text: str) -> bool:
    """Fewer than three sentences (C4). Thai and its neighbours, which mark no end of a sentence, are not judged."""
    return not is_unspaced(text) and sum(1 for _ in _SENTENCE_END.finditer(text)) < 3


GOPHER: Sequence[tuple[str, Callable[[str], bool]]] = (
    ("length", has_wrong_length),
    ("word_length", has_odd_words),
    ("symbol_ratio", has_many_symbols),
    ("bullets", has_many_bullets),
    ("ellipses", has_many_ellipses),
    ("few_letters", has_few_alphabetic_words),
    ("few_stop_words", has_few_stop_words),
)
C4: Sequence[tuple[str, Callable[[str], bool]]] = (
    ("lorem_ipsum", has_lorem_ipsum),
    ("curly_brace", has_curly_brace),
    ("few_sentences", has_few_sentences),
)
