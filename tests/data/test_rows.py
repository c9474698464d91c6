"""JSON, CSV, Parquet and Arrow: which field is the text, which rows are bad, compared with what wrote them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.data import formats
from inkling.data.documents import Document, Skipped, read_documents
from inkling.data.formats import Reading
from inkling.data.formats import csv as csv_format
from inkling.data.formats import json as json_format

CHINESE = "这是一段没有空格的中文文本，应该被当作正文使用。"
FUZZ = settings(max_examples=100, deadline=None)


def read(data: bytes | str, name: str, field: str | None = None) -> list[Document | Skipped]:
    content = data.encode() if isinstance(data, str) else data
    return list(formats.read(io.BytesIO(content), name, Reading(field)))


def texts(data: bytes | str, name: str, field: str | None = None) -> list[str]:
    items = read(data, name, field)
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items if isinstance(item, Document)]


def as_jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": 3, "text": "short"}, "short"),
        ({"title": "A long title with many words in it", "content": "c"}, "c"),
        ({"name": "x", "review": "It was a good film."}, "It was a good film."),
        (
            {"question": "What is it?", "n": 1, "answer": "It is a thing that people use."},
            "What is it?\n\nIt is a thing that people use.",
        ),
        ({"titel": "短", "inhalt": CHINESE}, CHINESE),
        ("a bare string", "a bare string"),
    ],
)
def test_the_text_of_a_row_is_guessed(row: Any, text: str) -> None:
    assert texts(as_jsonl([row]), "a.jsonl") == [text]
    assert texts(json.dumps([row, row]), "a.json") == [text, text]


def test_a_field_that_is_given_is_the_text_and_the_others_are_kept() -> None:
    rows = [{"text": "no", "abstract": "yes", "n": 1}, {"text": "no abstract here"}]
    first, second = read(as_jsonl(rows), "a.jsonl", "abstract")
    assert first == Document("yes", "a.jsonl:1", {"text": "no", "n": 1})
    assert isinstance(second, Skipped)
    assert second.reason == "no_text_field"
    assert "'abstract'" in second.example


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}], "id": 7},
        {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]},
        {"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."},
        {"chosen": [{"role": "user", "content": "Hello?"}], "rejected": [{"role": "user", "content": "No."}]},
        {"instruction": "Hello?", "input": "", "output": "Yes."},
        {"prompt": "Hello?", "completion": "Yes."},
    ],
)
def test_chats_and_preferences_keep_their_whole_row(row: dict[str, Any]) -> None:
    (item,) = read(as_jsonl([row]), "a.jsonl")
    assert isinstance(item, Document)
    assert item.metadata == {"row": row}
    assert "Hello?" in item.text


def test_json_in_all_its_shapes() -> None:
    rows = [{"text": "one"}, {"text": "two"}]
    assert texts(json.dumps(rows), "a.json") == ["one", "two"]
    assert texts(json.dumps(rows, indent=2), "a.json") == ["one", "two"]
    assert texts(json.dumps({"version": 1, "data": rows}), "a.json") == ["one", "two"]
    assert texts(json.dumps(rows[0], indent=1), "a.json") == ["one"]
    assert texts(as_jsonl(rows), "a.json") == ["one", "two"]
    assert read("", "a.json") == []
    assert [getattr(item, "reason", "") for item in read("[1, 2", "a.json")] == ["bad_json"]
    assert [item.id for item in read(json.dumps(rows), "a.json") if isinstance(item, Document)] == [
        "a.json#1",
        "a.json#2",
    ]


def test_a_json_value_that_is_too_long_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_format, "MAX_BYTES", 1000)
    (item,) = read(json.dumps([{"text": "x" * 2000}]), "a.json")
    assert isinstance(item, Skipped)
    assert "one object a line" in item.example


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=20)


@FUZZ
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from([",", ";", "\t", "|"]))
def test_cells_are_those_that_the_csv_module_wrote(rows: list[tuple[str, str]], delimiter: str) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["title", "text", f"more{delimiter * 3}"])
    writer.writerows([*row, delimiter * 3] for row in rows)
    items = read(buffer.getvalue(), "a.tsv" if delimiter == "\t" else "a.csv")
    assert [(item.text, item.metadata["title"]) for item in items if isinstance(item, Document)] == [
        (text, title) for title, text in rows
    ]


def test_a_csv_with_line_ends_in_cells_bad_rows_and_no_header() -> None:
    content = 'id,text\n1,"first\nline, and ""second"""\n2,too,many\n\n3,third one\n'
    first, bad, last = read(content, "a.csv")
    assert first == Document('first\nline, and "second"', "a.csv:2", {"id": "1"})
    assert isinstance(bad, Skipped)
    assert (bad.reason, bad.example) == ("bad_row", "a.csv:4: 3 cells instead of 2")
    assert last == Document("third one", "a.csv:6", {"id": "3"})
    assert texts("7,It was a dark night.\n8,And it rained all day.\n", "a.csv") == [
        "It was a dark night.",
        "And it rained all day.",
    ]


def test_a_cell_above_the_limit_of_the_csv_module_is_read_and_a_row_without_end_is_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "word " * 40_000
    assert texts(f'id,text\n1,"{long}, ""quoted"""\n', "a.csv") == [f'{long}, "quoted"']
    monkeypatch.setattr(csv_format, "MAX_ROW_BYTES", 1000)
    items = read('id,text\n1,"' + "x" * 5000 + '\n2,"fine text here"\n', "a.csv")
    assert [getattr(item, "reason", "text") for item in items] == ["too_long", "text"]


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_parquet_and_arrow_rows_are_those_of_the_table(kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"n": list(range(700)), "text": [f"text {n} é" for n in range(700)]})
    buffer = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, buffer, row_group_size=300)
    else:
        new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with new(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    items = read(buffer.getvalue(), "a.parquet" if kind == "parquet" else "a.arrow")
    assert items == [
        Document(f"text {n} é", f"a.{items[0].id[2:].split('#')[0]}#{n + 1}", {"n": n}) for n in range(700)
    ]  # type: ignore[union-attr]


def test_a_data_set_saved_by_datasets_is_its_training_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for part in ("train", "test"):
        folder = tmp_path / "set" / part
        folder.mkdir(parents=True)
        table = pyarrow.table({"text": [f"{part} row {n}" for n in range(3)]})
        with (
            (folder / "data-00000-of-00001.arrow").open("wb") as file,
            pyarrow.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
        (folder / "dataset_info.json").write_text('{"description": "not a text of it"}')
        (folder / "state.json").write_text("{}")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [document.text for document in read_documents([tmp_path / "set"])] == [f"train row {n}" for n in range(3)]
    assert len(list(read_documents([tmp_path / "set" / "test"]))) == 3


def test_parquet_without_text_or_damaged_is_named() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, 1.5]}), buffer)
    (item,) = read(buffer.getvalue(), "a.parquet")
    assert isinstance(item, Skipped)
    assert (item.reason, item.example) == ("no_text_field", "a.parquet: there is no a column of text, only a, b")
    (item,) = read(buffer.getvalue()[:-20], "a.parquet")
    assert isinstance(item, Skipped)
    assert item.reason == "damaged_parquet"


@FUZZ
@given(data=st.binary(max_size=200) | st.text(alphabet='{}[]",:a1\n\r\t\\u', max_size=80).map(str.encode))
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".ipynb"])
def test_any_bytes_are_documents_or_reasons(suffix: str, data: bytes) -> None:
    for item in read(data, f"a{suffix}"):
        assert isinstance(item, (Document, Skipped))
        if isinstance(item, Document):
            item.text.encode()


def test_damaged_parquet_is_documents_or_reasons(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["some text"] * 50}), buffer)
    good = buffer.getvalue()
    for place in range(0, len(good), 7):
        data = bytearray(good)
        data[place] ^= 0x55
        assert all(isinstance(item, (Document, Skipped)) for item in read(bytes(data), "a.parquet"))


def test_a_notebook_is_the_text_of_its_cells() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Some words."]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "1"}]},
        {"cell_type": "raw", "source": "no"},
    ]
    assert texts(json.dumps({"cells": cells}), "a.ipynb") == ["# Title\nSome words.\n\nprint(1)"]
    assert [getattr(item, "reason", "") for item in read('{"cells": 3}', "a.ipynb")] == ["bad_json"]
