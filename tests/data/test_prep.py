"""Preparing text: what is kept and why, disjoint splits, continuing after a kill, and every bad input."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import words
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.shards import Dataset
from inkling.errors import DataError, TokenizerError
from inkling.tokenizer import Tokenizer


def documents(folder: Path, split: str) -> list[str]:
    dataset, tokenizer = Dataset.open(folder), Tokenizer.load(folder)
    part = dataset.train if split == "train" else dataset.validation
    starts = [0, *part.document_ends.tolist()[:-1]]
    return [
        tokenizer.decode(part.tokens(start, end)[:-1].tolist())
        for start, end in zip(starts, part.document_ends.tolist(), strict=True)
    ]


def digest(folder: Path) -> str:
    content = b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    return hashlib.sha256(content).hexdigest()


def test_the_text_comes_back_from_the_shards(text_folder: Path, data_folder: Path) -> None:
    texts = {path.read_text() for path in text_folder.iterdir()}
    train, validation = documents(data_folder, "train"), documents(data_folder, "validation")
    assert {*train, *validation} == texts
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == len(texts)
    dataset = Dataset.open(data_folder)
    assert dataset.validation.num_bytes == sum(len(text.encode()) for text in validation)
    dataset.check_checksums()
    hashes = {source["path"]: source["sha256"] for source in dataset.manifest["sources"]}
    assert hashes == {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in text_folder.iterdir()}


def test_adding_text_moves_no_document_to_the_other_side(text_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for number in range(40):
        (more / f"{number}.txt").write_text(words(1000 + number, 90))
    out = tmp_path / "data"
    prep([str(text_folder), str(more)], out, PrepOptions(level="char", val_fraction=0.2), num_workers=1)
    assert set(documents(data_folder, "validation")) <= set(documents(out, "validation"))
    assert set(documents(data_folder, "train")) <= set(documents(out, "train"))


def test_the_number_of_processes_changes_nothing(
    text_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkling.data.documents.UNIT_BYTES", 2500)
    monkeypatch.setattr("inkling.data.prep._FEW_BYTES", 0)
    options = PrepOptions(vocab_size=300, val_fraction=0.2)
    one, two = tmp_path / "one", tmp_path / "two"
    prep([str(text_folder)], one, options, num_workers=1)
    prep([str(text_folder)], two, options, num_workers=2)
    assert digest(one) == digest(two)
    assert len(list(one.glob("0*.bin"))) > 10
    assert {*documents(one, "train"), *documents(one, "validation")} == {p.read_text() for p in text_folder.iterdir()}


def test_every_document_dropped_is_counted_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(words(number, 60))
    (folder / "copy.txt").write_text(words(3, 60) + "\n")
    (folder / "empty.txt").write_text(" \n")
    (folder / "gone.html").write_text("<html>404: Not Found</html>")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x00\x00" * 50)
    (folder / "latin.txt").write_bytes("é".encode("latin-1") * 300)
    (folder / "rows.jsonl").write_text('{"text": "' + "good row. " * 9 + '"}\n{bad\n{"id": 1}\n')
    (folder / ".hidden").write_text("never read")
    prepared = prep([str(folder)], tmp_path / "out", PrepOptions(level="char", val_fraction=0.2), num_workers=1)
    dropped = prepared.report["dropped"]
    assert {reason: entry["documents"] for reason, entry in dropped.items()} == {
        "duplicate": 1,
        "empty": 1,
        "http_error": 1,
        "binary": 1,
        "invalid_utf8": 1,
        "bad_json": 1,
        "no_text_field": 1,
    }
    assert "rows.jsonl:2" in dropped["bad_json"]["examples"][0]
    assert prepared.report["documents_kept"] == 31
    assert prepared.report["documents_in"] == 38
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == prepared.report


def test_one_text_is_cut_at_the_end_as_the_benchmarks_do(tmp_path: Path) -> None:
    text = words(5, 3000) + "\r\n é"
    (tmp_path / "a.txt").write_bytes(text.encode())
    prepared = prep([str(tmp_path / "a.txt")], tmp_path / "out", PrepOptions(level="char", clean="none"), num_workers=1)
    cut = int(len(text) * 0.9)
    assert documents(tmp_path / "out", "train") == [text[:cut]]
    assert documents(tmp_path / "out", "validation") == [text[cut:]]
    assert prepared.manifest["split"].startswith("tail")


def test_no_validation_text_trains_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ab " * 600 + "xyzxyzxyz " * 20)
    prep([str(tmp_path / "a.txt")], tmp_path / "out", PrepOptions(vocab_size=300, split="tail"), num_workers=1)
    assert b"xyz" not in Tokenizer.load(tmp_path / "out").token_bytes


def test_a_separator_line_makes_documents(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\n<|endoftext|>\n".join(words(number, 50) for number in range(40)))
    prep([str(tmp_path / "a.md")], tmp_path / "out", PrepOptions(level="char", val_fraction=0.2), num_workers=1)
    texts = documents(tmp_path / "out", "train") + documents(tmp_path / "out", "validation")
    assert len(texts) == 40
    assert "<|endoftext|>" not in "".join(texts)


def test_again_is_already_done_and_another_way_is_refused(text_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = PrepOptions(level="char", val_fraction=0.2)
    prep([str(text_folder)], out, options, num_workers=1)
    before = digest(out)
    assert prep([str(text_folder)], out, options).was_there
    other = PrepOptions(level="char", val_fraction=0.3)
    with pytest.raises(DataError, match="choose another -o, or add --overwrite"):
        prep([str(text_folder)], out, other)
    assert digest(out) == before
    prep([str(text_folder)], out, other, overwrite=True, num_workers=1)
    assert digest(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_anywhere_it_goes_on_to_the_same_bytes(text_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    command = [sys.executable, "-m", "inkling", "prep", str(text_folder), "-o", str(out)]
    command += ["--level", "char", "--val-fraction", "0.2", "--workers", "1"]
    for delay_s in (0.9, 1.0, 1.1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or (out / "manifest.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert digest(out) == digest(data_folder)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        prep([str(tmp_path / "none")], tmp_path / "out", PrepOptions())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no files in"):
        prep([str(tmp_path / "empty")], tmp_path / "out", PrepOptions())
    (tmp_path / "a.bin").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"no text is left: all 1 documents were dropped \(binary 1\)"):
        prep([str(tmp_path / "a.bin")], tmp_path / "out", PrepOptions(), num_workers=1)
    with pytest.raises(DataError, match="did you mean 'builtin:python'"):
        prep(["builtin:pyton"], tmp_path / "out", PrepOptions())
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(DataError, match="too few to keep some for validation"):
        prep([str(tmp_path / "b.txt")], tmp_path / "out", PrepOptions(), num_workers=1)


def test_a_folder_that_holds_something_else_is_left_alone(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(DataError, match="holds something else"):
        prep([str(text_folder)], tmp_path, PrepOptions())
    assert (tmp_path / "thesis.doc").read_text() == "years of work"


def test_a_damaged_data_folder_and_another_tokenizer(data_folder: Path, tmp_path: Path) -> None:
    import shutil

    from inkling.tokenizer.train import train_char

    copy = tmp_path / "copy"
    shutil.copytree(data_folder, copy)
    with pytest.raises(TokenizerError, match="was made with another tokenizer"):
        Dataset.open(copy).check_tokenizer(train_char(["Ж"]))
    shard = copy / "00000.bin"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="was altered"):
        Dataset.open(copy).check_checksums()
    shard.write_bytes(content[:-2])
    with pytest.raises(DataError, match="bytes instead of"):
        Dataset.open(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(DataError, match="unfinished"):
        Dataset.open(copy)
    with pytest.raises(DataError, match="there is no data folder"):
        Dataset.open(tmp_path / "none")


def test_options_that_make_no_sense_are_refused_before_anything_is_read(text_folder: Path, tmp_path: Path) -> None:
    phases: list[str] = []
    for options in (
        {"tokenizer": str(tmp_path / "none")},
        {"digits": "whole", "pattern": "qwen2"},
        {"keep_out": [str(tmp_path / "none")]},
    ):
        with pytest.raises((DataError, TokenizerError)):
            prep(
                [str(text_folder)],
                tmp_path / "out",
                PrepOptions.model_validate(options),
                on_progress=lambda phase, *progress: phases.append(phase),
            )
    assert not phases
    assert list(tmp_path.iterdir()) == []
