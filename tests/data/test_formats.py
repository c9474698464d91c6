"""Readers: no input makes an error, and nothing is lost silently."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkling.data import formats
from inkling.data.clean import clean
from inkling.data.documents import Document, Skipped, list_sources, read_documents, read_source
from inkling.data.formats import code, jsonl, text
from inkling.data.split import content_hash, is_validation
from inkling.errors import DataError

FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(st.binary(max_size=60), max_size=6))
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".py"])
def test_any_bytes_are_documents_or_reasons(tmp_path: Path, suffix: str, lines: list[bytes]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\n".join(lines))
    for item in formats.for_path(path).read(path):
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
    items = list(jsonl.read(path))
    assert len(items) == len(rows)
    for row, item in zip(rows, items, strict=True):
        wanted = next((row[k] for k in ("text", "content") if isinstance(row.get(k), str)), None)
        assert (item.text if isinstance(item, Document) else None) == (
            None if wanted is None else str(wanted).encode("utf-8", "replace").decode()
        )


def test_a_text_file_is_one_document_exactly_as_it_is(tmp_path: Path) -> None:
    content = "  first\r\n\r\n\tlast é \n"
    (tmp_path / "a.txt").write_bytes(content.encode())
    assert [item.text for item in text.read(tmp_path / "a.txt") if isinstance(item, Document)] == [content]


def test_memory_is_bounded_by_cutting_endless_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_text("x" * 2500 + "\n" + "line\n" * 500)
    items = [item for item in text.read(tmp_path / "a.txt") if isinstance(item, Document)]
    assert all(len(item.text) <= 1000 for item in items)
    assert "".join(item.text for item in items) == (tmp_path / "a.txt").read_text()


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [source.path.name for source in list_sources([tmp_path])] == ["a.txt"]


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    source = list_sources([tmp_path])[0]
    (tmp_path / "a.txt").unlink()
    assert [item.reason for item in read_source(source) if isinstance(item, Skipped)] == ["unreadable"]


def test_builtin_python_is_source_code_without_tests() -> None:
    sources = list_sources(["builtin:python-small"])
    names = {source.path.name for source in sources}
    assert {"argparse.py", "json"} & names
    assert not any(name.startswith("test_") for name in names)
    assert sum(source.num_bytes for source in sources) > 5e6
    first = next(iter(read_documents(["builtin:python-small"])))
    assert first.source.startswith("builtin:python-small/")
    full = {source.name for source in list_sources(["builtin:python-full"])}
    assert any("torch/nn/modules" in name for name in full)


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
    result = clean(Document(content, "a.txt"), "prose")
    assert isinstance(result, Skipped)
    assert result.reason == reason


def test_code_is_judged_as_code() -> None:
    braces = "{};\n" * 200
    assert isinstance(clean(Document(braces, "a.c"), "auto"), Document)
    minified = "var a=1;" * 400
    result = clean(Document(minified, "a.js"), "auto")
    assert isinstance(result, Skipped)
    assert result.reason == "minified"
    assert ".py" in code.SUFFIXES


def test_normalising_and_leaving_alone() -> None:
    raw = "e\u0301\r\nx\x00y\ufeff"
    cleaned = clean(Document(raw, "a.txt"), "prose")
    assert isinstance(cleaned, Document)
    assert cleaned.text == "é\nxy\ufeff"
    untouched = clean(Document(raw, "a.txt"), "none")
    assert isinstance(untouched, Document)
    assert untouched.text == raw


def test_the_split_takes_about_its_share_and_depends_on_the_seed() -> None:
    hashes = [content_hash(str(number)) for number in range(4000)]
    share = sum(is_validation(value, 0.1, seed=0) for value in hashes) / 4000
    assert share == pytest.approx(0.1, abs=0.02)
    assert any(is_validation(v, 0.1, 0) != is_validation(v, 0.1, 1) for v in hashes)
    assert content_hash(" a\n") == content_hash("a")


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="there are no files"):
        list_sources([])
