"""Cleaning: what is changed in a text, what is masked, and which texts are dropped, with a reason each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from inkling.data.clean.characters import normalise
from inkling.data.clean.language import check_codes, is_other_language
from inkling.data.clean.personal import mask_personal
from inkling.data.clean.rules import CHANGES, RULES, RULES_VERSION, Profile
from inkling.data.documents import Document, Skipped
from inkling.data.formats import code

__all__ = ["RULES_VERSION", "Cleaning", "Profile", "check_codes", "clean", "mask_personal", "normalise"]


@dataclass(frozen=True)
class Cleaning:
    """How documents are cleaned. Travels to other processes.

    Attributes:
        profile: Rules and changes. auto: code for source files, prose for the rest. web: strict, for pages of the web,
            with the thresholds of Gopher and C4. none: no changes, and only empty text is dropped.
        mask_personal: Put `<EMAIL>`, `<PHONE>` and the like in place of personal data and keys, in every profile.
        languages: Codes of the languages that are kept; empty for all. Source code is not judged.
    """

    profile: Profile = "auto"
    mask_personal: bool = False
    languages: tuple[str, ...] = ()


def clean(document: Document, cleaning: Cleaning, counts: Counter[str] | None = None) -> Document | Skipped:
    """The document with its text changed as `cleaning` says, its metadata as it is, or why it is dropped.

    Cleaning a text again changes nothing. Whether it is dropped is judged by the text after the changes.

    Args:
        counts: Takes up what was changed in a document that is kept, such as {"boilerplate_line": 3}.

    Raises MissingExtraError when languages are wanted and py3langid is not installed.
    """
    profile = cleaning.profile
    if profile == "auto":
        profile = "code" if PurePath(document.id).suffix.lower() in code.SUFFIXES else "prose"
    text, changes = document.text, Counter[str]()
    while (changed := _change_once(text, profile, cleaning.mask_personal, changes)) != text:
        text = changed
    for reason, drops in RULES[profile]:
        if drops(text):
            return _skipped(reason, document, text)
    if cleaning.languages and profile != "code" and is_other_language(text, cleaning.languages):
        return _skipped("language", document, text)
    if counts is not None:
        counts.update(changes)
    return Document(text, document.id, _metadata(document, cleaning))


def _metadata(document: Document, cleaning: Cleaning) -> dict[str, Any]:
    """A row that passes through whole is masked in all its strings, as its text is."""
    if not cleaning.mask_personal or "row" not in document.metadata:
        return document.metadata
    return {**document.metadata, "row": _masked(document.metadata["row"])}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_personal(value)[0]
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _change_once(text: str, profile: Profile, mask: bool, changes: Counter[str]) -> str:
    """All changes, in order. One may make another possible, so the caller repeats them until there is none."""
    for kind, change in CHANGES[profile]:
        text, count = change(text)
        if count:
            changes[kind] += count
    if mask:
        text, masked = mask_personal(text)
        changes.update({f"masked_{kind}": count for kind, count in masked.items()})
    return text


def _skipped(reason: str, document: Document, text: str) -> Skipped:
    beginning = " ".join(text[:80].split())
    return Skipped(reason, len(document.text.encode("utf-8", "replace")), f"{document.id}: {beginning}")
