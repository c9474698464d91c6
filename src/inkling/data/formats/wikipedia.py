"""Dumps of MediaWiki (export schema 0.3 to 0.11): an article is a document, its markup removed. Other XML: its text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

from inkling.data.documents import Document, Skipped

SUFFIXES = (".xml",)

MAX_PAGE_CHARACTERS = 16 << 20
"""A longer article or text is cut off."""
_READ_BYTES = 1 << 18


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The articles of a dump, or all the text of another XML file as one document."""
    pages = _Pages()
    num_bytes, number = 0, 0
    while True:
        data = file.read(_READ_BYTES)
        num_bytes += len(data)
        try:
            pages.feed(data)
        except expat.ExpatError as error:
            yield Skipped("bad_xml", num_bytes, f"{name}: {error}")
        except _RefusedError as error:
            yield Skipped("bad_xml", num_bytes, f"{name}: {error}")
        for title, text in pages.take():
            number += 1
            yield Document(plain_text(text), f"{name}#{title or number}", {"title": title})
        if not data or pages.is_broken:
            break
    if not number and not pages.is_dump and pages.other_text.strip():
        yield Document(pages.other_text, name)


class _RefusedError(Exception):
    """Something that no dump has and that may be an attack."""


class _Pages:
    """Articles from a stream of XML. Entities are not allowed to be declared."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._refuse
        self._ready: list[tuple[str, str]] = []
        self._path: list[str] = []
        self._page: dict[str, list[str]] = {}
        self._size = 0
        self._other: list[str] = []
        self._other_size = 0
        self.is_dump = False
        self.is_broken = False

    def feed(self, data: bytes) -> None:
        try:
            self._parser.Parse(data, not data)
        except (expat.ExpatError, _RefusedError):
            self.is_broken = True
            raise

    def take(self) -> list[tuple[str, str]]:
        """Title and markup of the articles that are complete."""
        ready, self._ready = self._ready, []
        return ready

    @property
    def other_text(self) -> str:
        """The text of a file that is no dump, each element's on lines of its own."""
        lines = (line.strip() for line in "".join(self._other).split("\n"))
        return "\n".join(line for line in lines if line)

    def _refuse(self, *declaration: object) -> None:
        raise _RefusedError("it declares entities, which no dump does")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(tag)
        if tag == "mediawiki":
            self.is_dump = True
        if tag == "page":
            self._page, self._size = {}, 0
        if tag == "redirect":
            self._page["redirect"] = [""]
        if not self.is_dump:
            self._characters("\n")

    def _end(self, tag: str) -> None:
        self._path.pop()
        if tag == "page" and self.is_dump:
            page = {name: "".join(parts) for name, parts in self._page.items()}
            if page.get("ns", "0").strip() == "0" and "redirect" not in page and page.get("text"):
                self._ready.append((page.get("title", "").strip(), page["text"]))
            self._page = {}

    def _characters(self, text: str) -> None:
        if self.is_dump:
            if self._path and self._path[-1] in ("title", "ns", "text") and self._size < MAX_PAGE_CHARACTERS:
                self._page.setdefault(self._path[-1], []).append(text)
                self._size += len(text)
        elif self._other_size < MAX_PAGE_CHARACTERS:
            self._other.append(text)
            self._other_size += len(text)


# ---------------------------------------------------------------- markup

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DROPPED_TAG = re.compile(
    r"<(/?)(ref|gallery|math|timeline|score|syntaxhighlight|source|imagemap|graph|templatedata)\b[^<>]{0,2000}?(/?)>",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")
_LINK = re.compile(r"\[\[([^\[\]|]{0,500})(?:\|([^\[\]]{0,2000}))?\]\]")
_EXTERNAL = re.compile(r"\[(?:https?|ftp)?:?//[^\s\]]{1,2000}(?: ([^\]\n]{0,1000}))?\]")
_NOT_TEXT = re.compile(
    r"^\s*:?(?:file|image|category|datei|bild|kategorie|media|fichier|archivo|[a-z]{2,3})\s*:",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^(={1,6})[ \t]*([^\n]{1,500}?)[ \t]*\1[ \t]*$", re.MULTILINE)
_LIST = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
_MAGIC = re.compile(r"__[A-Z]{3,20}__")
_QUOTES = re.compile(r"'{2,5}")
_BLANK_LINES = re.compile(r"\n{3,}")
_MAX_NESTING = 8


def plain_text(wikitext: str) -> str:
    """An article without its markup: templates, tables, references, files, categories go; the words of links stay."""
    text = _COMMENT.sub("", wikitext)
    text = _without_elements(text)
    text = _without_nested(_without_nested(text, "{{", "}}"), "{|", "|}")
    for _ in range(_MAX_NESTING):  # links stand inside the captions of pictures
        text, count = _LINK.subn(_words_of_link, text)
        if not count:
            break
    text = _EXTERNAL.sub(lambda match: match.group(1) or "", text)
    text = _QUOTES.sub("", _MAGIC.sub("", _TAG.sub("", text)))
    text = _LIST.sub("", _HEADING.sub(r"\2", text))
    text = html.unescape(text)
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip() + "\n"


def _words_of_link(match: re.Match[str]) -> str:
    target, words = match.groups()
    if _NOT_TEXT.match(target):
        return ""
    return words.rpartition("|")[2] if words is not None else target


def _without_elements(text: str) -> str:
    """Without references, formulas and the like; of those that are never closed, only the tag goes."""
    tags = list(_DROPPED_TAG.finditer(text))
    last_closing = {tag.group(2).lower(): number for number, tag in enumerate(tags) if tag.group(1)}
    kept, start, inside = [], 0, ""
    for number, tag in enumerate(tags):
        closes, name, is_empty = tag.groups()
        if inside:
            if closes and name.lower() == inside:
                start, inside = tag.end(), ""
            continue
        kept.append(text[start : tag.start()])
        start = tag.end()
        if not closes and not is_empty and last_closing.get(name.lower(), -1) > number:
            inside = name.lower()
    return "".join(kept) + text[start:]


def _without_nested(text: str, opening: str, closing: str) -> str:
    """Without what stands between brackets, nested or not; what is never closed runs to the end of its paragraph."""
    if opening not in text:
        return text
    kept, depth, start, opened_at = [], 0, 0, 0
    for match in re.finditer(f"{re.escape(opening)}|{re.escape(closing)}", text):
        if match.group() == opening:
            if depth == 0:
                kept.append(text[start : match.start()])
                opened_at = match.start()
            depth += 1
        elif depth:
            depth -= 1
            start = match.end()
    if depth:
        end = text.find("\n\n", opened_at)
        start = max(start, opened_at) if end < 0 else end
        return "".join(kept) + (text[start:] if end >= 0 else "")
    return "".join(kept) + text[start:]
