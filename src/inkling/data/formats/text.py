"""Plain text and Markdown. Lines that hold only `<|endoftext|>` separate documents.

Nothing else is touched, but for the licence around the books of Project Gutenberg. A plain-text Wikipedia, as the one
in Simple English is handed around (a title on a line, its article below, an empty line), is cut into its articles.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO

from inkling.data.documents import SEPARATOR_LINE, Document, Skipped
from inkling.data.formats._decode import decode, wide_encoding
from inkling.data.formats._gutenberg import strip_licence

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".org", ".tex", ".log")

MAX_DOCUMENT_BYTES = 32 << 20
"""A longer document is cut, so that memory stays bounded."""
_READ_BYTES = 1 << 20
_LICENCE_FILES = {"license", "licence", "copying", "notice", "unlicense"}
_GUTENBERG = "PROJECT GUTENBERG"
_SEPARATOR = re.compile(rb"^[ \t]*" + re.escape(SEPARATOR_LINE.encode()) + rb"[ \t]*\r?(?:\n|\Z)", re.MULTILINE)
_UTF8_MAX_BYTES = 4
_EMPTY_LINE = re.compile(rb"\r?\n(?:\r?\n)+")
_MIN_ARTICLES, _MIN_ARTICLE_SHARE = 50, 0.6


def read(file: BinaryIO, name: str, first_line: int = 1) -> Iterator[Document | Skipped]:
    """The documents of one file, named by their first line. A file whose beginning is binary is skipped as a whole."""
    if PurePath(name).stem.lower() in _LICENCE_FILES:
        yield Skipped("licence_file", _num_bytes_left(file), name)
        return
    beginning = file.read(_READ_BYTES)
    if wide_encoding(beginning):
        yield from _whole(beginning + file.read(MAX_DOCUMENT_BYTES), name)
        return
    if b"\0" in beginning:
        yield Skipped("binary", len(beginning) + _num_bytes_left(file), f"{name}: holds zero bytes")
        return
    is_articles = _is_articles(beginning)
    for line, data in _documents(beginning, file, _EMPTY_LINE if is_articles else _SEPARATOR):
        place = name if first_line + line == 1 else f"{name}:{first_line + line}"
        for item in _whole(data, place):
            yield _with_title(item) if is_articles and isinstance(item, Document) else item


def _whole(data: bytes, place: str) -> Iterator[Document | Skipped]:
    """One document."""
    text = decode(data, place)
    if isinstance(text, Skipped):
        yield text
    elif _GUTENBERG in text[:20_000].upper():
        yield Document(strip_licence(text), place, {"gutenberg": True})
    else:
        yield Document(text, place)


def _is_articles(beginning: bytes) -> bool:
    """Whether blocks are a title and an article that begins with its words: "April" and "April is the fourth month"."""
    blocks = [block.strip().split(b"\n", 2) for block in _EMPTY_LINE.split(beginning)]
    titled = sum(
        len(block) > 1 and len(block[0]) < 100 and block[0].strip().lower() in block[1][:200].lower()
        for block in blocks
        if block[0].strip()
    )
    return titled >= _MIN_ARTICLES and titled >= _MIN_ARTICLE_SHARE * len(blocks)


def _with_title(document: Document) -> Document:
    return Document(document.text, document.id, {"title": document.text.strip().partition("\n")[0].strip()})


def border(data: bytes) -> int | None:
    """Where a document may begin: after the first separator, or else paragraph, line or character."""
    separator = _SEPARATOR.search(data, data.find(b"\n") + 1)
    if separator:
        return separator.end()
    for end in (b"\n\n", b"\n\r\n", b"\n"):
        found = data.find(end)
        if found >= 0:
            return found + len(end)
    return next((start for start in range(min(_UTF8_MAX_BYTES, len(data))) if data[start] & 0xC0 != 0x80), 0)


def _documents(data: bytes, file: BinaryIO, separators: re.Pattern[bytes]) -> Iterator[tuple[int, bytes]]:
    """(lines before it, bytes) of each document."""
    pending, line = bytearray(), 0
    searched = 0  # up to here `pending` has no separator
    while data:
        pending += data
        data = file.read(_READ_BYTES)
        last_line = pending.rfind(b"\n") + 1  # what follows may be the beginning of a separator
        start = 0
        for separator in separators.finditer(pending, searched, last_line):
            if separator.start() > start:
                yield line, bytes(pending[start : separator.start()])
            line += pending.count(b"\n", start, separator.end())
            start = separator.end()
        del pending[:start]
        searched = max(0, last_line - start - len(b"\r\n"))  # an empty line may go on
        while len(pending) > MAX_DOCUMENT_BYTES:
            cut = _last_border(pending)
            yield line, bytes(pending[:cut])
            line += pending.count(b"\n", 0, cut)
            del pending[:cut]
            searched = max(0, searched - cut)
    end = separators.search(pending, searched)
    if end:
        del pending[end.start() :]
    if pending:
        yield line, bytes(pending)


def _last_border(data: bytearray) -> int:
    """Where to cut a document that is too long: after the last paragraph in its second half, or line, or character."""
    for end in (b"\n\n", b"\n\r\n", b"\n"):
        start = data.rfind(end, MAX_DOCUMENT_BYTES // 2, MAX_DOCUMENT_BYTES)
        if start >= 0:
            return start + len(end)
    ends = range(MAX_DOCUMENT_BYTES, MAX_DOCUMENT_BYTES - _UTF8_MAX_BYTES, -1)
    return next((end for end in ends if data[end] & 0xC0 != 0x80), MAX_DOCUMENT_BYTES)  # 10xxxxxx goes on


def _num_bytes_left(file: BinaryIO) -> int:
    if file.seekable():
        here = file.tell()
        return file.seek(0, os.SEEK_END) - here
    count = 0
    while data := file.read(_READ_BYTES):
        count += len(data)
    return count
