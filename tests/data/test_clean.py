"""Cleaning: each rule drops what it is for and keeps what looks like it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkling.data.clean import Cleaning, clean, normalise
from inkling.data.documents import Document, Skipped
from inkling.data.formats import code


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("404: Not Found", "http_error"),
        ("<html><head><title>503 Service Unavailable</title></head></html>", "http_error"),
        ("QUJD" * 400, "encoded"),
        ("same line\n" * 40, "repetitive"),
        ("$%&/()=?*+#" * 40, "symbols"),
        ("  \n\t", "empty"),
    ],
)
def test_reasons_of_the_prose_profile(content: str, reason: str) -> None:
    result = clean(Document(content, "a.txt"), Cleaning("prose"))
    assert isinstance(result, Skipped)
    assert result.reason == reason


def test_code_is_judged_as_code() -> None:
    braces = "{};\n" * 200
    assert isinstance(clean(Document(braces, "a.c"), Cleaning("auto")), Document)
    minified = "var a=1;" * 400
    result = clean(Document(minified, "a.js"), Cleaning("auto"))
    assert isinstance(result, Skipped)
    assert result.reason == "minified"
    assert ".py" in code.SUFFIXES


def test_normalising_and_leaving_alone() -> None:
    raw = "e\u0301\r\nx\x00y\ufeff"
    cleaned = clean(Document(raw, "a.txt"), Cleaning("prose"))
    assert isinstance(cleaned, Document)
    assert cleaned.text == "é\nxy\ufeff"
    untouched = clean(Document(raw, "a.txt"), Cleaning("none"))
    assert isinstance(untouched, Document)
    assert untouched.text == raw


@pytest.mark.parametrize(
    "content",
    [
        "Chapter 404: the valley was not found on any map.",
        "404 pages later she put the book down.",
        "Error: not found\n" + "What the program says when a file is missing, and what to do then.\n" * 3,
        "\n".join(f"Line {number} differs from the others." for number in range(40)),
        "नमस्ते दुनिया। " * 40,
        "これは文章です。" * 40,
    ],
)
def test_prose_that_only_looks_bad_is_kept(content: str) -> None:
    assert isinstance(clean(Document(content, "a.txt"), Cleaning("prose")), Document)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("a.js", "minified"),
        ("my #1 folder/c#/a.js", "minified"),
        ("builtin:python/a.py", "minified"),
        ("a.txt", None),
        ("a.txt#3", None),
        ("a.jsonl:7", None),
        ("builtin:python-prose/a.py#docstrings", None),
    ],
)
def test_the_name_of_the_source_decides_how_it_is_judged(source: str, reason: str | None) -> None:
    one_long_line = "It was the same as before, and yet it was not. " * 60
    result = clean(Document(one_long_line, source), Cleaning("auto"))
    assert (result.reason if isinstance(result, Skipped) else None) == reason


def test_what_is_dropped_is_named_with_its_size_and_beginning() -> None:
    result = clean(Document("404: Not Found é", "pages/a.txt"), Cleaning("prose"))
    assert result == Skipped("http_error", 17, "pages/a.txt: 404: Not Found é")


@given(st.text())
def test_normalised_text_has_no_control_characters_and_stays_as_it_is(raw: str) -> None:
    text = normalise(raw)
    assert {c for c in text if unicodedata.category(c) == "Cc"} <= {"\t", "\n", "\f"}
    assert unicodedata.is_normalized("NFC", text)
    assert normalise(text) == text


@given(st.text(min_size=1))
def test_none_changes_nothing(raw: str) -> None:
    assert clean(Document(raw, "a.txt"), Cleaning("none")) == Document(raw, "a.txt")
