"""Cleaning: texts normalised, masked and judged, by profile. Each rule is a function of its own with a reason code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from inkling.data.clean import boilerplate, judge, language, normalise, personal, web
from inkling.data.documents import Document, Skipped
from inkling.data.formats import code

Profile = Literal["auto", "prose", "web", "code", "none"]

RULES_VERSION = 2
"""Changes with the rules, so that text cleaned by other ones is not taken for the same."""


@dataclass(frozen=True)
class Cleaning:
    """What is cleaned.

    Attributes:
        profile: `auto` is `code` for source files and `prose` for the rest; `web` is as strict as what web pages need;
            `none` changes nothing and drops only empty text.
        mask_personal: Replace addresses, numbers and keys of people by their kind.
        languages: ISO 639-1 codes of the languages that are kept; all when empty.
    """

    profile: Profile = "auto"
    mask_personal: bool = False
    languages: tuple[str, ...] = ()

    def profile_for(self, document: Document) -> Literal["prose", "web", "code", "none"]:
        """The profile of one document."""
        if self.profile != "auto":
            return self.profile
        return "code" if PurePath(document.id).suffix.lower() in code.SUFFIXES else "prose"


Change = Callable[[str, Counter[str]], str]
"""A rule that changes text and counts what it changed."""
Test = Callable[[str], bool]
"""A rule that says whether a text is dropped."""

_CHANGES: dict[str, list[Change]] = {
    "none": [],
    "code": [normalise.characters],
    "prose": [normalise.mojibake, normalise.characters, normalise.invisible, boilerplate.lines],
    "web": [normalise.mojibake, normalise.characters, normalise.invisible, boilerplate.lines],
}
_TESTS: dict[str, list[tuple[str, Test]]] = {
    "none": [("empty", judge.is_nothing)],
    "code": [
        ("empty", judge.is_empty),
        ("http_error", judge.is_http_error),
        ("encoded", judge.is_encoded),
        ("minified", judge.is_minified),
    ],
    "prose": [
        ("empty", judge.is_empty),
        ("http_error", judge.is_http_error),
        ("encoded", judge.is_encoded),
        ("symbols", judge.is_symbols),
        ("repetitive", judge.is_repetitive),
    ],
}
_TESTS["web"] = [
    *_TESTS["prose"],
    ("lorem_ipsum", web.is_lorem_ipsum),
    ("curly_braces", web.has_curly_braces),
    ("few_sentences", web.has_few_sentences),
    ("number_of_words", web.has_unusual_number_of_words),
    ("length_of_words", web.has_unusual_words),
    ("symbols_per_word", web.has_many_symbols),
    ("bullets", web.is_bullets),
    ("ellipses", web.is_ellipses),
    ("few_letters", web.has_words_without_letters),
    ("no_stop_words", web.has_no_stop_words),
    ("repeated_lines", web.repeats_lines),
    ("repeated_words", web.repeats_words),
]


def clean(document: Document, cleaning: Cleaning, counts: Counter[str] | None = None) -> Document | Skipped:
    """The document with its text cleaned, or why it is dropped.

    Args:
        counts: Counts what was changed in documents that are kept, such as `mojibake` or `masked_email`.
    """
    changed: Counter[str] = Counter()
    profile = cleaning.profile_for(document)
    text = document.text
    for change in _CHANGES[profile]:
        text = change(text, changed)
    if cleaning.mask_personal:
        text = personal.mask(text, changed)
    reason = next((reason for reason, drops in _TESTS[profile] if drops(text)), None)
    if reason is None and cleaning.languages and not language.is_in(text, cleaning.languages):
        reason = "language"
    if reason is not None:
        beginning = " ".join(text[:80].split())
        return Skipped(reason, len(document.text.encode()), f"{document.id}: {beginning}")
    if counts is not None:
        counts.update(changed)
    return Document(text, document.id, document.metadata)
