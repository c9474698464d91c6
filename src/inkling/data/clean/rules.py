"""Which changes and rules a profile has, each beside the code under which it is counted.

A change is a function text -> (text, how many); a rule is a function text -> bool that says whether a text is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from inkling.data.clean import artefacts, boilerplate, characters, mojibake, quality, repetition

Profile = Literal["auto", "prose", "web", "code", "none"]
Rule = Callable[[str], bool]
Change = Callable[[str], tuple[str, int]]

RULES_VERSION = 2
"""Rises whenever a rule or a change gives another result for some text."""

_CHARACTERS: Sequence[tuple[str, Change]] = (
    ("line_end", characters.unify_line_ends),
    ("control_character", characters.remove_control),
    ("unicode_form", characters.compose),
)
_PROSE: Sequence[tuple[str, Change]] = (
    ("mojibake", mojibake.repair_mojibake),  # first: some of its characters are control characters
    *_CHARACTERS,
    ("invisible_character", characters.remove_invisible),
    ("boilerplate_line", boilerplate.remove_boilerplate),
)

CHANGES: Mapping[str, Sequence[tuple[str, Change]]] = {
    "none": (),
    "prose": _PROSE,
    "web": (*_PROSE, ("unfinished_line", boilerplate.remove_unfinished_lines)),
    "code": _CHARACTERS,
}
"""In order."""

_ARTEFACTS: Sequence[tuple[str, Rule]] = (
    ("empty", artefacts.is_empty),
    ("http_error", artefacts.is_http_error),
    ("encoded", artefacts.is_encoded),
)

RULES: Mapping[str, Sequence[tuple[str, Rule]]] = {
    "none": (("empty", artefacts.is_nothing),),
    # Mild: notes of one line and whole books are kept, lists, poems and tables too.
    "prose": (
        *_ARTEFACTS,
        ("symbols", artefacts.is_symbols),
        ("repetitive", partial(repetition.has_repeated_lines, at_most=0.7, at_least=20)),
        ("repetitive", partial(repetition.has_repeated_paragraphs, at_most=0.7, at_least=10)),
        ("symbol_ratio", partial(quality.has_many_symbols, at_most=0.5, at_least=20)),
        ("ellipses", partial(quality.has_many_ellipses, at_most=0.9, at_least=10)),
    ),
    # Strict: the published thresholds, which are for pages found on the web.
    "web": (*_ARTEFACTS, ("symbols", artefacts.is_symbols), *quality.GOPHER, *repetition.GOPHER, *quality.C4),
    "code": (*_ARTEFACTS, ("minified", artefacts.is_minified)),
}
"""In the order in which they are asked; the first that drops a document names the reason."""
