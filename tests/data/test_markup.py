"""Pages, dumps, books and source files: their text, and nothing around it."""

from __future__ import annotations

import bz2
import io
import time
import xml.sax.saxutils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.data import formats
from inkling.data.documents import Document, Skipped
from inkling.data.formats import code
from inkling.data.formats._gutenberg import strip_licence
from inkling.data.formats.html import main_text
from inkling.data.formats.wikipedia import plain_text

FUZZ = settings(max_examples=100, deadline=None)


def read(data: bytes | str, name: str) -> list[Document | Skipped]:
    return list(formats.read(io.BytesIO(data.encode() if isinstance(data, str) else data), name))


def text_of(data: bytes | str, name: str) -> str:
    (item,) = read(data, name)
    assert isinstance(item, Document), item
    return item.text


# ---------------------------------------------------------------- HTML

PAGE = """<!DOCTYPE html><html><head><title>A &amp; B</title><style>p { color: red }</style>
<script>var text = "<p>no</p>";</script></head><body>
<nav><a href="/">Home</a> <a href="/x">More</a></nav><header>Site name</header>
<main><h1>Heading</h1><p>First   paragraph with <b>bold</b> and a <a href="x">link</a>.
Same paragraph &lt;here&gt;.</p><ul><li>one</li><li>two</li></ul><pre>code  kept
  as it is</pre><p hidden>secret</p><div style="display: none">secret</div><p>Last<br>line</p>
<div><a href="1">Next</a> <a href="2">Previous</a></div></main>
<footer>Imprint</footer></body></html>"""


def test_a_page_is_its_main_text() -> None:
    (item,) = read(PAGE, "a.html")
    assert isinstance(item, Document)
    assert item.metadata == {"title": "A & B"}
    assert item.text == (
        "Heading\n\nFirst paragraph with bold and a link. Same paragraph <here>.\n\n- one\n- two\n\n"
        "code  kept\n  as it is\n\nLast\nline"
    )


def test_pages_without_main_part_and_with_tags_left_open() -> None:
    assert main_text("<p>One<p>Two<div>Three")[1] == "One\n\nTwo\n\nThree"
    assert main_text("just text")[1] == "just text"
    assert main_text("<main>x</main><p>" + "Much more text outside. " * 20)[1].endswith("outside.")
    assert main_text("<nav>menu<p>still menu</nav><p>text</p>")[1] == "text"


@pytest.mark.parametrize("charset", ["latin-1", "cp1252", "shift_jis", "utf-16"])
def test_the_charset_of_a_page(charset: str) -> None:
    words = "日本語" if charset == "shift_jis" else "Größe café"
    page = f'<html><head><meta charset="{charset}"></head><body><p>{words}</p></body></html>'
    assert text_of(page.encode(charset), "a.html") == words


@FUZZ
@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<main>",
                "</nav>",
                "<nav>",
                "text ",
                "<!--",
                "-->",
                "<a href=x",
                "&#x",
                "<pre>",
                "\n",
                "<script>",
            ]
        ),
        max_size=30,
    )
)
def test_any_page_is_read(pieces: list[str]) -> None:
    for item in read("".join(pieces), "a.html"):
        assert isinstance(item, (Document, Skipped))


@pytest.mark.parametrize("piece", ["<a>x", "<b", "<!--", "<p>", "<main><p>x", "<!", "</", "&", "<?", "<pre>"])
def test_pages_take_no_more_than_linear_time(piece: str) -> None:
    started = time.process_time()
    main_text(piece * 20_000)
    assert time.process_time() - started < 5


# ---------------------------------------------------------------- Wikipedia

ARTICLE = """{{Infobox|a={{nested|x}}|b=2}}
'''Ada''' was a [[mathematician]] and [[writer|author]].<ref name="x">A {{cite}} source</ref><ref name="x"/>
[[File:Ada.jpg|thumb|A picture of [[Ada]] with [[a|friends]]]]
== Life ==
* born in [[London]]
* ''died'' there<!-- a
comment -->
{| class="wikitable"
|-
| cell {{x}}
|}
See [https://example.org the site] &amp; more &ndash; H<sub>2</sub>O.
[[Category:People]] __NOTOC__
[[de:Ada]]"""
PLAIN = "Ada was a mathematician and author.\n\nLife\nborn in London\ndied there\n\nSee the site & more – H2O."


def dump(*pages: tuple[str, str, str]) -> str:
    inner = "".join(
        f"<page><title>{xml.sax.saxutils.escape(title)}</title><ns>{ns}</ns><revision><text>"
        f"{xml.sax.saxutils.escape(text)}</text></revision></page>"
        for title, ns, text in pages
    )
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename></siteinfo>{inner}</mediawiki>'


def test_markup_is_removed_and_words_stay() -> None:
    assert plain_text(ARTICLE).strip() == PLAIN


@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2"])
def test_the_articles_of_a_dump(name: str) -> None:
    pages = dump(("Ada", "0", ARTICLE), ("Talk:Ada", "1", "talk"), ("B & C", "0", "Second article."))
    pages = pages.replace(
        "</mediawiki>", '<page><title>R</title><ns>0</ns><redirect title="Ada"/><text>#R</text></page></mediawiki>'
    )
    data = pages.encode()
    items = read(bz2.compress(data) if name.endswith("bz2") else data, name)
    assert [(item.id, item.text.strip()) for item in items if isinstance(item, Document)] == [
        ("dump.xml#Ada", PLAIN),
        ("dump.xml#B & C", "Second article."),
    ]


def test_a_dump_that_is_cut_off_keeps_its_articles_and_says_so() -> None:
    pages = dump(*((f"P{n}", "0", f"Article {n}.") for n in range(5)))
    items = read(pages[: len(pages) - 60], "dump.xml")
    assert len([item for item in items if isinstance(item, Document)]) == 4
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["bad_xml"]


def test_other_xml_is_its_text_and_entities_are_refused() -> None:
    assert text_of("<a><b>One</b> <c>two</c></a>", "a.xml").split() == ["One", "two"]
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
    assert [getattr(item, "reason", item) for item in read(bomb, "a.xml")] == ["bad_xml"]


@FUZZ
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "[[", "]]", "|", "{|", "|}", "<ref>", "</ref>", "<!--", "'''", "==", "\n", "a "]),
        max_size=40,
    )
)
def test_any_markup_is_read(pieces: list[str]) -> None:
    text = plain_text("".join(pieces))
    assert set(text) <= {"\n", *"".join(pieces)}
    assert plain_text("".join(pieces)) == text


@pytest.mark.parametrize(
    "piece", ["<ref></ref", "{{", "[[", "<ref>", "<!--", "[[a|", "=", "'", "{|", "<a ", "[http://x "]
)
def test_markup_takes_no_more_than_linear_time(piece: str) -> None:
    started = time.process_time()
    plain_text(piece * 20_000)
    assert time.process_time() - started < 5


# ---------------------------------------------------------------- Gutenberg

BOOK = "CHAPTER I\n\nIt was a dark night.\n\n*** not a mark ***\n\nThe end of the story.\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "The Project Gutenberg eBook of X\n\nlicence\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n",
            "\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nmore licence\n",
        ),
        (
            "Project Gutenberg's X, by Y\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\nProduced by A\nB\n\n",
            "\nEnd of Project Gutenberg's X, by Y\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n",
        ),
        ("Project Gutenberg Etext\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n", ""),
    ],
)
def test_a_book_comes_without_its_licence(before: str, after: str) -> None:
    (item,) = read(before + BOOK + after, "book.txt")
    assert item == Document(BOOK, "book.txt", {"gutenberg": True})


def test_a_text_about_gutenberg_stays_as_it_is() -> None:
    about = "I found it at Project Gutenberg.\n\n*** START OF MY STORY ***\n"
    assert strip_licence(about) is about
    assert text_of(about, "a.txt") == about


# ---------------------------------------------------------------- source code


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("a.py", "# Copyright 2020 Someone\n# Licensed under MIT\n\n"),
        ("a.c", "/* Copyright (c) 2020\n * License: MIT\n */\n"),
        ("a.go", "// SPDX-License-Identifier: MIT\n\n"),
        ("a.sql", "-- Licence: public\n"),
    ],
)
def test_a_licence_at_the_top_is_left_out(name: str, licence: str) -> None:
    body = "def f(): pass  # Copyright stays here\n"
    (item,) = read(licence + body, name)
    assert isinstance(item, Document)
    assert item.text == body
    assert item.metadata["language"]
    assert code.strip_licence("#!/bin/sh\n" + "# licence: x\n" + body) == "#!/bin/sh\n" + body


@pytest.mark.parametrize(
    "content",
    ["# What this does.\n\nx = 1\n", '"""Copyright of the docstring."""\n', "x = 1\n# licence\n", "#include <x.h>\n"],
)
def test_other_comments_stay(content: str) -> None:
    assert text_of(content, "a.py") == content


def test_generated_files_and_licence_files_are_skipped() -> None:
    assert [getattr(i, "reason", i) for i in read("// Code generated by protoc. DO NOT EDIT.\nx\n", "a.go")] == [
        "generated"
    ]
    assert [getattr(i, "reason", i) for i in read("MIT License ...", "x/LICENSE")] == ["licence_file"]
    assert [getattr(i, "reason", i) for i in read("MIT License ...", "x/COPYING.txt")] == ["licence_file"]
    assert text_of('print("generated by me")\n', "a.py") == 'print("generated by me")\n'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_text_with_a_mark_of_its_encoding(encoding: str) -> None:
    assert text_of("naïve 日本\n".encode(encoding), "a.txt") == "naïve 日本\n"


@FUZZ
@given(st.binary(max_size=200))
@pytest.mark.parametrize("suffix", [".html", ".xml", ".txt", ".c", ".md"])
def test_any_bytes_are_documents_or_reasons(suffix: str, data: bytes) -> None:
    for item in read(data, f"a{suffix}"):
        assert isinstance(item, (Document, Skipped))
        if isinstance(item, Document):
            item.text.encode()
