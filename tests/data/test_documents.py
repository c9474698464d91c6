"""Sources: which files are read, in which order, and what is said about the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkling.data.documents import Document, Skipped, list_sources, read_documents, read_source
from inkling.errors import DataError


def test_loops_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [Path(source.location).name for source in list_sources([tmp_path])] == ["a.txt"]


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    source = list_sources([tmp_path])[0]
    (tmp_path / "a.txt").unlink()
    assert [item.reason for item in read_source(source) if isinstance(item, Skipped)] == ["unreadable"]


def test_a_large_file_that_vanishes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkling.data.documents.UNIT_BYTES", 10)
    (tmp_path / "a.txt").write_text("text " * 20)
    source = list_sources([tmp_path])[0]
    (tmp_path / "a.txt").unlink()
    assert [item.reason for item in read_source(source) if isinstance(item, Skipped)] == ["unreadable"]


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="there are no files"):
        list_sources([])


def test_folders_are_walked_in_sorted_order_without_what_is_hidden_or_installed(tmp_path: Path) -> None:
    wanted = ["a.txt", "z.md", "b/c.py", "b/d/e.unknown"]
    for name in [*wanted, ".hidden.txt", ".git/config", "node_modules/a.js", "b/__pycache__/c.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [source.name for source in list_sources([tmp_path])] == [str(tmp_path / name) for name in wanted]
    assert {source.num_bytes for source in list_sources([tmp_path])} == {4}


def test_an_empty_folder_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no files in .*Name a file, or a folder that holds text"):
        list_sources([tmp_path])


@pytest.mark.parametrize("name", ["missing.txt", "loop"])
def test_a_path_that_leads_nowhere_is_an_error_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"there is no file or folder .*Check its spelling") as caught:
        list_sources([tmp_path / name])
    assert "\n" not in str(caught.value)


def test_a_link_to_itself_in_a_folder_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    assert [document.text for document in read_documents([tmp_path])] == ["text"]


def test_unknown_suffixes_are_text_when_they_hold_text(tmp_path: Path) -> None:
    (tmp_path / "a.unknown").write_text("text")
    (tmp_path / "b.unknown").write_bytes(b"\x7fELF\x00\x01")
    (tmp_path / "c").write_bytes("naïve café".encode("latin-1"))
    items = [item for source in list_sources([tmp_path]) for item in read_source(source)]
    assert [item.text if isinstance(item, Document) else item.reason for item in items] == [
        "text",
        "binary",
        "invalid_utf8",
    ]
    skipped = items[1]
    assert isinstance(skipped, Skipped)
    assert skipped.num_bytes == 6
    assert str(tmp_path / "b.unknown") in skipped.example
    assert len(list(read_documents([tmp_path]))) == 1


def test_an_unknown_collection_is_an_error_that_names_the_one_meant() -> None:
    with pytest.raises(DataError, match="did you mean 'builtin:python-small'"):
        list_sources(["builtin:python-smal"])
