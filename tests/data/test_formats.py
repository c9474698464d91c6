"""Formats: no input makes an error, and nothing is lost silently."""

from __future__ import annotations

import importlib
import inspect
import json
import pydoc_data.topics
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkling.data import formats
from inkling.data.documents import Document, Skipped, list_sources, read_documents, read_source
from inkling.data.formats import builtin, code, jsonl, text

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(st.binary(max_size=60), max_size=6))
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".py"])
def test_any_bytes_are_documents_or_reasons(tmp_path: Path, suffix: str, lines: list[bytes]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\n".join(lines))
    for item in read(path):
        assert isinstance(item, (Document, Skipped))
        if isinstance(item, Document):
            item.text.encode()


@FUZZ
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["text", "content", "n"]), st.text(max_size=9) | st.integers()), max_size=6
    )
)
def test_json_lines_give_the_text_of_each_row(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = read(path)
    assert len(items) == len(rows)
    for row, item in zip(rows, items, strict=True):
        wanted = next((row[k] for k in ("text", "content") if isinstance(row.get(k), str)), None)
        assert (item.text if isinstance(item, Document) else None) == (
            None if wanted is None else str(wanted).encode("utf-8", "replace").decode()
        )


def test_a_text_file_is_one_document_exactly_as_it_is(tmp_path: Path) -> None:
    content = "  first\r\n\r\n\tlast é \n"
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert [item.text for item in read(tmp_path / "a.txt") if isinstance(item, Document)] == [content]


def read(path: Path) -> list[Document | Skipped]:
    with path.open("rb") as file:
        return list(formats.read(file, str(path)))


def _texts(path: Path) -> list[str]:
    items = read(path)
    assert all(isinstance(item, Document) for item in items)
    return [item.text for item in items if isinstance(item, Document)]


@pytest.mark.parametrize(
    "content",
    ["x" * 2500 + "\n" + "line\n" * 500, "é" * 3000, "a" + "🌱" * 1500, "word " * 150 + "\r\n\r\n" + "more " * 400],
)
def test_memory_is_bounded_by_cutting_long_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_bytes(content.encode())
    texts = _texts(tmp_path / "a.txt")
    assert all(len(piece.encode()) <= 1000 for piece in texts)
    assert "".join(texts) == content


def test_long_files_are_cut_between_paragraphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_text("A line.\nAnother line.\n\n" * 100)
    texts = _texts(tmp_path / "a.txt")
    assert len(texts) > 2
    assert all(piece.endswith("Another line.\n\n") for piece in texts)


def test_a_file_up_to_the_limit_is_not_cut(tmp_path: Path) -> None:
    content = "A line.\n\n" * (text.MAX_DOCUMENT_BYTES // 9)
    (tmp_path / "a.txt").write_text(content)
    assert _texts(tmp_path / "a.txt") == [content]


@FUZZ
@given(st.lists(st.text(alphabet="ab \n", max_size=9), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_separator_lines_part_documents(tmp_path: Path, parts: list[str], end: str) -> None:
    parts = [part + "\n" for part in parts]
    (tmp_path / "a.txt").write_bytes(f"<|endoftext|>{end}".join(parts).encode())
    assert _texts(tmp_path / "a.txt") == parts


def test_a_separator_at_the_end_begins_nothing_and_one_within_a_line_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x <|endoftext|> y\n<|endoftext|>\nz\n<|endoftext|>\n")
    assert _texts(tmp_path / "a.txt") == ["x <|endoftext|> y\n", "z\n"]


@pytest.mark.parametrize("suffix", [".txt", ".py", ".unknown"])
def test_binary_and_other_encodings_are_skipped_with_the_reason(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for data, reason in [(b"GIF89a\x00\x01", "binary"), ("é".encode("latin-1") * 99, "invalid_utf8")]:
        path.write_bytes(data)
        (item,) = read(path)
        assert isinstance(item, Skipped)
        assert (item.reason, item.num_bytes) == (reason, len(data))
        assert str(path) in item.example


def test_a_long_binary_file_is_skipped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 40)
    assert [(item.reason, item.num_bytes) for item in read(tmp_path / "a.txt") if isinstance(item, Skipped)] == [
        ("binary", 256 * 40)
    ]


def test_a_stray_byte_is_replaced_and_marks_that_were_there_do_not_count(tmp_path: Path) -> None:
    content = "\N{REPLACEMENT CHARACTER} was here. " * 100
    (tmp_path / "a.txt").write_bytes(content.encode() + b"\xff")
    assert _texts(tmp_path / "a.txt") == [content + "\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{bad", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b"9" * 5000, "bad_json"),
        (b'{"n": 1}', "no_text_field"),
        (b'["text"]', "no_text_field"),
        (b'{"text": "\x00"}', "binary"),
        (b'{"text": "\xe9\xe9"}', "invalid_utf8"),
        (b'{"text": "' + b"x" * 250_000 + b'"}', "too_long"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, reason: str
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 110_000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n' + line + b'\n{"text": "four"}\n')
    first, bad, last = read(path)
    assert first == Document("one", f"{path}:1")
    assert last == Document("four", f"{path}:4")
    assert isinstance(bad, Skipped)
    assert bad.reason == reason
    assert bad.num_bytes in (len(line), len(line) + 1)
    assert bad.example.startswith(f"{path}:3: ")
    assert len(bad.example) < len(str(path)) + 200


def test_each_suffix_belongs_to_one_format() -> None:
    modules = [importlib.import_module(f"inkling.data.formats.{name}") for name in formats.names()]
    suffixes = [suffix for module in modules for suffix in module.SUFFIXES]
    assert {".txt", ".md", ".html", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".xml", ".gz", ".zip"} < set(
        suffixes
    )
    assert len(set(suffixes)) == len(suffixes)
    assert formats.for_name("A.PY") is code
    assert formats.for_name("a.unknown") is text


@pytest.mark.parametrize("name", ["builtin:python", "builtin:python-small", "builtin:python-full"])
def test_builtin_python_is_source_code_without_tests(name: str) -> None:
    sources = list_sources([name])
    names = {Path(source.location).name for source in sources}
    assert {"argparse.py", "dataclasses.py"} <= names
    assert not {n for n in names if n.startswith("test_") or n.endswith("_test.py") or n == "conftest.py"}
    folders = {part for source in sources for part in source.name.split("/")[1:-1]}
    assert not folders & {"test", "tests", "_testing", "idle_test", "encodings", "site-packages"}
    assert sum(source.num_bytes for source in sources) > 5e6
    assert any("torch/nn/modules" in source.name for source in sources) == (name != "builtin:python-small")
    first = next(iter(read_documents([name])))
    assert first.id == sources[0].name
    assert first.text == Path(sources[0].location).read_text(encoding="utf-8")


def test_builtin_prose_is_docstrings_and_topics_of_help() -> None:
    sources = {source.name.partition("/")[2].partition("/")[2]: source for source in list_sources([builtin.PROSE])}
    (document,) = read_source(next(source for name, source in sources.items() if name == "textwrap.py"))
    assert isinstance(document, Document)
    assert document.id.startswith("builtin:python-prose/")
    assert textwrap.__doc__ is not None
    assert document.text.startswith(textwrap.__doc__.strip())
    assert inspect.getdoc(textwrap.TextWrapper.wrap) in document.text
    assert "import" not in document.text.split()
    (topics,) = read_source(next(source for name, source in sources.items() if name == "topics.py"))
    assert isinstance(topics, Document)
    assert topics.text == "\n\n".join(value.strip() for value in pydoc_data.topics.topics.values())


def test_prose_of_a_file_that_does_not_parse_is_skipped_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""Text."""\ndef f(:\n')
    with (tmp_path / "a.py").open("rb") as file:
        (item,) = builtin.read(file, "a.py")
    assert isinstance(item, Skipped)
    assert item.reason == "bad_syntax"
    assert item.example.endswith("in line 2")


@pytest.mark.parametrize("read_bytes", [7, 1 << 20])
def test_a_plain_text_wikipedia_is_cut_into_its_articles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    titles = [f"Thing {number}" for number in range(60)]
    articles = [f"{title}\n{title.upper()} is a thing.\nIt has a second line." for title in titles]
    (tmp_path / "all.txt").write_text("\n\n".join(articles) + "\n\n\n", newline="\n")
    (tmp_path / "few.txt").write_text("\n\n".join(articles[:20]))
    (tmp_path / "prose.txt").write_text("\n\n".join(f"Of {title}\nand others" for title in titles))
    if read_bytes < 1 << 20:
        monkeypatch.setattr(text, "_is_articles", lambda beginning: True)
    monkeypatch.setattr(text, "_READ_BYTES", read_bytes)
    found = list(read_documents([str(tmp_path / "all.txt")]))
    assert [item.metadata["title"] for item in found if isinstance(item, Document)] == titles
    assert [item.text for item in found if isinstance(item, Document)][: len(titles) - 1] == articles[:-1]
    if read_bytes == 1 << 20:
        assert [len(list(read_documents([str(tmp_path / name)]))) for name in ("few.txt", "prose.txt")] == [1, 1]
