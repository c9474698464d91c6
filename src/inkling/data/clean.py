"""Cleaning rules: each a function of its own with a reason code, gathered in profiles.

Rules of the `prose` profile follow Gopher (arXiv:2112.11446) where they have a source.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import PurePath
from typing import Literal

from inkling.data.documents import Document, Skipped
from inkling.data.formats import code

Profile = Literal["auto", "prose", "code", "none"]
Rule = Callable[[str], bool]

RULES_VERSION = 1
"""Changes with the rules, so that text cleaned by other ones is not taken for the same."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_HTTP_ERROR = re.compile(
    r"\s*(?:<[^>]{0,200}>\s*)*(?:HTTP\s*)?(?:error\s*)?[45]\d\d:?\s*"
    r"(?:not found|forbidden|bad gateway|internal server error|service unavailable|too many requests|unauthorized)",
    re.IGNORECASE,
)
_ENCODED = re.compile(r"[A-Za-z0-9+/=]{400,}|(?:\\x[0-9a-fA-F]{2}){100,}|(?:0x[0-9a-fA-F]{1,8},?\s*){200,}")


def clean(document: Document, profile: Profile) -> Document | Skipped:
    """The document with its text normalised, or why it is dropped. `none` changes nothing and drops only empty text."""
    if profile == "auto":
        profile = "code" if PurePath(document.id).suffix.lower() in code.SUFFIXES else "prose"
    text = document.text if profile == "none" else normalise(document.text)
    for reason, drops in _RULES[profile]:
        if drops(text):
            beginning = " ".join(text[:80].split())
            return Skipped(reason, len(document.text.encode()), f"{document.id}: {beginning}")
    return Document(text, document.id, document.metadata)


def normalise(text: str) -> str:
    """Unicode NFC, `\\n` line ends, no control characters but tab, line and form feed."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def is_empty(text: str) -> bool:
    """Nothing but white space."""
    return not text.strip()


def is_http_error(text: str) -> bool:
    """A page that says it is not there, saved as if it were the text."""
    return len(text) < 2000 and _HTTP_ERROR.match(text) is not None


def is_encoded(text: str) -> bool:
    """More than half of it is base64 or tables of numbers."""
    if len(text) < 800:
        return False
    return sum(len(match.group()) for match in _ENCODED.finditer(text)) > len(text) / 2


def is_minified(text: str) -> bool:
    """Code in which the average line is longer than anyone writes."""
    return len(text) > 2000 and len(text) / (text.count("\n") + 1) > 300


def is_symbols(text: str) -> bool:
    """Less than a third of the characters are letters or white space."""
    wanted = sum(character.isalpha() or character.isspace() for character in text)
    return len(text) > 200 and wanted < len(text) / 3


def is_repetitive(text: str) -> bool:
    """More than 70 % of the lines stand in it more than once (Gopher: 30 % are enough for web pages)."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return len(lines) >= 20 and len(set(lines)) < 0.3 * len(lines)


_RULES: dict[str, list[tuple[str, Rule]]] = {
    "none": [("empty", lambda text: not text)],
    "prose": [
        ("empty", is_empty),
        ("http_error", is_http_error),
        ("encoded", is_encoded),
        ("symbols", is_symbols),
        ("repetitive", is_repetitive),
    ],
    "code": [
        ("empty", is_empty),
        ("http_error", is_http_error),
        ("encoded", is_encoded),
        ("minified", is_minified),
    ],
}
