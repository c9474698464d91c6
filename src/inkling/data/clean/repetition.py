"""Rules against repetition, after Gopher (arXiv:2112.11446, appendix A.1.1, table A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from inkling.data.clean.words import is_unspaced, words_of

_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
_DUPLICATE_NGRAM = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def has_repeated_lines(text: str, *, at_most: float = 0.3, characters: float = 1.0, at_least: int = 1) -> bool:
    """More than a share `at_most` of the lines, or `characters` of the text, is in lines that stood there before.

    Args:
        at_least: Text of fewer lines is not judged. Empty lines do not count.
    """
    return _repeats([line for line in map(str.strip, text.split("\n")) if line], text, at_most, characters, at_least)


def has_repeated_paragraphs(text: str, *, at_most: float = 0.3, characters: float = 1.0, at_least: int = 1) -> bool:
    """The same of paragraphs: what stands between empty lines."""
    paragraphs = [paragraph for paragraph in map(str.strip, text.split("\n\n")) if paragraph]
    return _repeats(paragraphs, text, at_most, characters, at_least)


def _repeats(pieces: list[str], text: str, at_most: float, characters: float, at_least: int) -> bool:
    unique = set(pieces)
    num_repeated = len(pieces) - len(unique)
    if not num_repeated or len(pieces) < at_least:
        return False
    if num_repeated > at_most * len(pieces):
        return True
    return sum(map(len, pieces)) - sum(map(len, unique)) > characters * len(text)


def has_top_ngram(text: str) -> bool:
    """The most frequent n-gram of words makes up more than 20, 18, 16 % of the characters, for n = 2, 3, 4."""
    words = words_of(text)
    if is_unspaced(text):
        return False
    for n, share in _TOP_NGRAM.items():
        ngrams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
        if ngrams:
            top, count = ngrams.most_common(1)[0]
            if count > 1 and len(" ".join(top)) * count > share * len(text):
                return True
    return False


def has_duplicate_ngrams(text: str) -> bool:
    """N-grams of words that stood there before cover more than 15, 14 … 10 % of the characters, for n = 5, 6 … 10.

    Characters that several of them cover count once.
    """
    words = words_of(text)
    if len(words) < min(_DUPLICATE_NGRAM) or is_unspaced(text):
        return False
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    hashes = ids * np.uint64(0x9E3779B97F4A7C15)
    rolling = hashes
    for n in range(2, max(_DUPLICATE_NGRAM) + 1):
        if len(words) < n:
            return False
        rolling = (rolling[:-1] * np.uint64(0xD6E8FEB86659FD93)) ^ _mix(hashes[n - 1 :])
        share = _DUPLICATE_NGRAM.get(n)
        if share is not None and int(lengths[_covered(rolling, n)].sum()) > share * len(text):
            return True
    return False


def _mix(values: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = (values ^ (values >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed


def _covered(ngrams: np.ndarray, n: int) -> np.ndarray:
    """Which words (number of n-grams + n - 1) are in an n-gram that is equal to an earlier one."""
    first = np.zeros(len(ngrams), bool)
    first[np.unique(ngrams, return_index=True)[1]] = True
    edges = np.zeros(len(ngrams) + n, np.int64)
    edges[: len(ngrams)] += ~first
    edges[n:] -= ~first
    covered: np.ndarray = np.cumsum(edges[:-1]) > 0
    return covered


GOPHER: Sequence[tuple[str, Callable[[str], bool]]] = (
    ("repeated_lines", partial(has_repeated_lines, at_most=0.3, characters=0.2)),
    ("repeated_paragraphs", partial(has_repeated_paragraphs, at_most=0.3, characters=0.2)),
    ("top_ngram", has_top_ngram),
    ("duplicate_ngrams", has_duplicate_ngrams),
)
