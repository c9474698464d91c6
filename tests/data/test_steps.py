"""The steps from sources to portions: datatrove's contract, files that change, units that are done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import words
from inkling.data import documents
from inkling.data.account import Account
from inkling.data.clean import Cleaning
from inkling.data.documents import Document, list_sources, parts_of, read_documents, read_part, units_of
from inkling.data.portions import Portions
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.steps import Clean, Ledger, Read, run, steps
from inkling.errors import DataError


def test_a_file_that_changes_while_it_is_read_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' * 3)
    ledger = Ledger()
    units = list(enumerate(units_of(list_sources([tmp_path]))))
    reading = Read(units, tmp_path / "work", ledger)(None, 0, 1)
    next(reading)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"text": "late"}\n')
    list(reading)
    assert f"{tmp_path / 'a.jsonl'} changed while it was read" in ledger.notes[0]


def test_steps_are_called_as_datatrove_calls_them(tmp_path: Path) -> None:
    given = [Document("404: Not Found", "a", {"unit": 0}), Document("good  text", "b", {"unit": 0})]
    ledger = Ledger()
    ledger.open(0)
    assert [document.id for document in Clean(Cleaning("prose"), ledger)(given, 0, 1)] == ["b"]
    assert ledger.accounts[0].dropped == {"http_error": 1}


def test_ranks_read_all_units_once_and_done_ones_never_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "UNIT_BYTES", 300)
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(words(number, 50))
    units = list(enumerate(units_of(list_sources([tmp_path]))))
    work = tmp_path / "work"
    work.mkdir()
    done = [
        run(steps(units, work, cleaning=Cleaning(), benchmark=None, signatures=True), rank=rank, world_size=4)
        for rank in (2, 0, 3, 1)
    ]
    assert sum(done) == 9
    assert run(steps(units, work, cleaning=Cleaning(), benchmark=None, signatures=True)) == 0
    found = Portions.read(work, len(units))
    assert found.num_documents == 9
    texts = list(found.texts(np.arange(9)))
    assert sorted(texts) == sorted((tmp_path / f"{number}.txt").read_text() for number in range(9))


@pytest.mark.parametrize("suffix", [".jsonl", ".txt"])
@pytest.mark.parametrize("unit_bytes", [100, 1000, 10_000])
def test_a_large_file_is_cut_between_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, unit_bytes: int
) -> None:
    texts = [words(number, 30) for number in range(60)]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    content = rows if suffix == ".jsonl" else "".join(f"{text}\n<|endoftext|>\n" for text in texts)
    (tmp_path / f"a{suffix}").write_text(content)
    (source,) = list_sources([tmp_path])
    whole = [item for part in parts_of(source) for item in read_part(part)]
    monkeypatch.setattr(documents, "UNIT_BYTES", unit_bytes)
    parts = list(parts_of(source))
    assert len(parts) == 1 or unit_bytes < 10_000 or suffix == ".txt"
    assert sum(part.num_bytes for part in parts) == source.num_bytes
    assert [item for part in parts for item in read_part(part)] == whole


def test_a_line_that_never_ends_is_one_part_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "UNIT_BYTES", 1000)
    monkeypatch.setattr(documents, "_BORDER_WINDOW_BYTES", 500)
    monkeypatch.setattr("inkling.data.formats.jsonl.MAX_LINE_BYTES", 2000)
    (tmp_path / "a.jsonl").write_text('{"text": "before"}\n{"text": "' + "x" * 9000 + '"}\n{"text": "after"}\n')
    assert [document.text for document in read_documents([tmp_path])] == ["before", "after"]


def test_a_folder_of_pictures_has_no_text(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    with pytest.raises(DataError, match=r"no text is left: all 5 documents were dropped \(binary 5\)"):
        prep([str(tmp_path)], tmp_path / "out", PrepOptions(), num_workers=1)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.txt").write_text("text")
    (tmp_path / "closed").chmod(0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="cannot list"):
        list_sources([tmp_path])


def test_accounts_add_up() -> None:
    one, two = Account(), Account()
    one.keep(3, 30)
    one.drop_kept("duplicate", 1, 10, ["a", "b"])
    two.add(one.as_dict())
    two.add(one.as_dict())
    assert two.as_dict() == {
        "documents_in": 6,
        "bytes_in": 60,
        "documents_kept": 4,
        "bytes_kept": 40,
        "dropped": {"duplicate": {"documents": 2, "bytes": 20, "examples": ["a", "b", "a"]}},
        "changes": {},
    }


def test_chats_pass_through_with_their_fields_and_are_split(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": words(n, 20)}], "id": n} for n in range(60)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[3]]))
    (tmp_path / "text.txt").write_text("\n<|endoftext|>\n".join(words(100 + n, 60) for n in range(60)))
    options = PrepOptions(level="char", val_fraction=0.2, near_duplicates="ignore")
    prepared = prep([str(tmp_path)], tmp_path / "out", options, num_workers=1)
    found = {
        split: [json.loads(line) for line in (tmp_path / "out" / entry["file"]).read_text().splitlines()]
        for split, entry in prepared.manifest["rows"].items()
    }
    assert sorted((row for split in found.values() for row in split), key=lambda row: row["id"]) == rows
    assert len(found["validation"]) > 3
    assert prepared.report["dropped"]["duplicate"]["documents"] == 1
    assert sum(split["num_documents"] for split in prepared.manifest["splits"].values()) == 60
    assert any("rows of chats and preferences pass through whole" in note for note in prepared.manifest["notes"])


def test_the_field_that_was_taken_for_the_text_is_said(tmp_path: Path) -> None:
    rows = [{"id": n, "title": "a", "review": words(n, 20)} for n in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = PrepOptions(level="char", val_fraction=0.2, near_duplicates="ignore")
    prepared = prep([str(tmp_path)], tmp_path / "out", options, num_workers=1)
    wanted = f"{tmp_path / 'a.jsonl'}: text is that of field review, not of id, title"
    assert wanted in prepared.manifest["notes"]
    named = prep([str(tmp_path / "a.jsonl")], tmp_path / "named", PrepOptions(text_field="review", level="char"))
    assert not any("field" in note for note in named.manifest["notes"])
