"""HTML: the main text of a page, without navigation, scripts and forms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".html", ".htm", ".xhtml")

MAX_BYTES = 16 << 20
"""A larger page is skipped."""
_DROPPED = {
    *("script", "style", "nav", "header", "footer", "aside", "form", "noscript", "svg", "template", "iframe"),
    *("button", "select", "textarea", "object", "math", "canvas", "audio", "video", "dialog", "menu"),
}
_VOID = {*("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")}
_BLOCKS = {
    *("p", "div", "section", "article", "main", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "table", "tr"),
    *(
        "blockquote",
        "pre",
        "figure",
        "figcaption",
        "dl",
        "dt",
        "dd",
        "br",
        "hr",
        "address",
        "body",
        "details",
        "summary",
    ),
}
_PARAGRAPHS = _BLOCKS - {"li", "tr", "br", "dt", "dd"}
_MAIN = {"main", "article"}
_MIN_MAIN_SHARE = 0.3
_MAX_LINK_SHARE, _MAX_LINK_CHARACTERS = 0.6, 200
_MAX_DEPTH = 2000
_SPACES = re.compile(r"[ \t\r\n\f]+")
_NO_TAG = re.compile(r"<(?=[^<>]*(?:<|\Z))")  # the library takes quadratic time over tags that never end
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_-]{2,30})", re.IGNORECASE)


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The page, as one document."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        yield Skipped("too_long", len(data), f"{name}: a page of more than {MAX_BYTES / 1e6:.0f} MB")
        return
    text = _decode(data, name)
    if isinstance(text, Skipped):
        yield text
        return
    title, content = main_text(text)
    yield Document(content, name, {"title": title} if title else {})


def _decode(data: bytes, name: str) -> str | Skipped:
    charset = _CHARSET.search(data[:4096])
    if charset and charset.group(1).lower() not in (b"utf-8", b"utf8"):
        try:
            return data.decode(charset.group(1).decode())
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(data, name)


def main_text(page: str) -> tuple[str, str]:
    """Title and main text of a page: its blocks on lines of their own, paragraphs parted by an empty line."""
    reader = _Reader()
    reader.feed(_NO_TAG.sub("&lt;", _without_comments(page)))
    reader.close()
    reader.end_block(paragraph=True)
    everything = "".join(text for text, _ in reader.blocks)
    main = "".join(text for text, is_main in reader.blocks if is_main)
    chosen = main if len(main) > _MIN_MAIN_SHARE * len(everything) else everything
    return reader.title.strip(), chosen.strip("\n")


def _without_comments(page: str) -> str:
    """A page without comments; of one that is never closed, only its beginning goes."""
    kept, start = [], 0
    last_end = page.rfind("-->")
    while (begin := page.find("<!--", start)) >= 0:
        kept.append(page[start:begin])
        start = page.find("-->", begin) + 3 if begin < last_end else begin + 4
    return "".join(kept) + page[start:]


class _Reader(HTMLParser):
    """Gathers blocks of text, each with whether it stands in the main part of the page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[str, bool]] = []
        self.title = ""
        self._open: list[str] = []
        self._num_open: Counter[str] = Counter()
        self._dropped_at: int | None = None  # depth of the outermost element that is dropped
        self._text: list[str] = []
        self._linked = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.end_block(paragraph=tag in _PARAGRAPHS)
            if tag == "li":
                self._text.append("- ")
        if tag in _VOID:
            return
        if len(self._open) < _MAX_DEPTH:
            self._open.append(tag)
            self._num_open[tag] += 1
        if self._dropped_at is None and (tag in _DROPPED or _is_hidden(attrs)):
            self._dropped_at = len(self._open)

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.end_block(paragraph=tag in _PARAGRAPHS)
        while self._num_open[tag]:  # what was left open inside ends too
            closed = self._open.pop()
            self._num_open[closed] -= 1
            if closed == tag:
                break
        if self._dropped_at is not None and len(self._open) < self._dropped_at:
            self._dropped_at = None

    def handle_data(self, data: str) -> None:
        if self._num_open["title"]:
            self.title += data
        elif self._dropped_at is None:
            text = data if self._num_open["pre"] else _SPACES.sub(" ", data)
            self._text.append(text)
            if self._num_open["a"]:
                self._linked += len(text)

    def end_block(self, *, paragraph: bool) -> None:
        """The text so far is a block of its own."""
        text = "".join(self._text)
        if not self._num_open["pre"]:
            text = _SPACES.sub(" ", text).strip(" ")
        length, linked = len(text), self._linked
        self._text, self._linked = [], 0
        is_links = length < _MAX_LINK_CHARACTERS and linked > _MAX_LINK_SHARE * length
        if text.strip(" -\n") and not is_links:
            self.blocks.append((text.rstrip() + "\n", any(self._num_open[tag] for tag in _MAIN)))
        if paragraph and self.blocks and not self.blocks[-1][0].endswith("\n\n"):
            text, is_main = self.blocks[-1]
            self.blocks[-1] = (f"{text}\n", is_main)


def _is_hidden(attrs: list[tuple[str, str | None]]) -> bool:
    for name, value in attrs:
        if name == "hidden" or (name == "aria-hidden" and value == "true"):
            return True
        if name == "style" and value and "display:none" in value.replace(" ", "").lower():
            return True
    return False
