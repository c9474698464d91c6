"""Pictures with captions: folders and WebDataset archives as rows, what is missing named, pictures read when needed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inkling.data.captions import row_documents
from inkling.data.chats import Conversation
from inkling.data.documents import Skipped
from inkling.data.examples import read_examples, rows_of
from inkling.data.pictures import MAX_BYTES, read_picture
from inkling.errors import DataError
from inkling.train.encode import Eyes


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 255 - number)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def shown(path: Path) -> list[tuple[str, str]]:
    """Picture and answer of each row."""
    rows = rows_of(path)
    assert all(isinstance(row, Conversation) for row in rows)
    return [(row.messages[0]["pictures"][0], row.messages[-1]["content"]) for row in rows]  # type: ignore[union-attr]


def test_a_folder_of_pictures_and_captions(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name, said in {"a.png": "A cat.", "b.JPG": "A dog.\n", "more/a.png": "A hat."}.items():
        (tmp_path / name).write_bytes(picture(len(said)))
        (tmp_path / name).with_suffix(".txt").write_text(said)
    assert shown(tmp_path) == [("a.png", "A cat."), ("b.JPG", "A dog."), ("more/a.png", "A hat.")]
    assert rows_of(tmp_path)[0].shape == "pictures with captions"


def test_half_a_pair_is_named(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
        (tmp_path / f"{number}.txt").write_text(f"Number {number}.")
    (tmp_path / "alone.txt").write_text("Nothing to see.")
    with pytest.raises(DataError, match=r"alone\.txt: a caption without a picture"):
        rows_of(tmp_path)
    (tmp_path / "alone.txt").unlink()
    (tmp_path / "silent.png").write_bytes(picture(9))
    with pytest.raises(DataError, match=r"silent\.png: a picture without a caption"):
        rows_of(tmp_path)
    found = read_examples(tmp_path, None, val_fraction=0.25, skip_bad=True)
    assert len(found.train) + len(found.validation) == 4
    assert len(found.bad) == 1


def test_rows_in_a_file_name_the_pictures_beside_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "unused.png").write_bytes(picture(2))
    (tmp_path / "captions.jsonl").write_text('{"image": "a.png", "caption": "A cat."}\n')
    assert shown(tmp_path) == [("a.png", "A cat.")]


def test_an_archive_of_samples(tmp_path: Path) -> None:
    asked = json.dumps({"question": "What is it?", "answer": "A cup."}).encode()
    members = {
        "one/0001.png": picture(1),
        "one/0001.txt": b"A cat.",
        "one/0002.txt": b"A dog.",
        "one/0002.png": picture(2),
        "0003.json": asked,
        "0003.png": picture(3),
    }
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "00000.tar", members)
    inside = "shards/00000.tar"
    assert shown(tmp_path) == [
        (f"{inside}/one/0001.png", "A cat."),
        (f"{inside}/one/0002.png", "A dog."),
        (f"{inside}/0003.png", "A cup."),
    ]
    assert (read_picture(f"{inside}/one/0002.png", tmp_path, 8) == (2, 0, 253)).all()
    assert shown(tmp_path / inside)[2][0] == "00000.tar/0003.png"
    for wrong in ("0009.png", "0003.json"):
        with pytest.raises(DataError, match="there is no picture"):
            read_picture(f"{inside}/{wrong}", tmp_path, 8)


def test_bad_archives_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "half.tar", {"1.png": picture(1), "2.txt": b"A dog.", "3.png": picture(1), "3.json": b"[1]"})
    reasons = [one.example for one in row_documents(tmp_path / "half.tar") if isinstance(one, Skipped)]
    assert [reason.rpartition("/")[2] for reason in reasons] == [
        "1: a picture without a caption (.txt or .json)",
        "2: a caption without a picture",
        "3.json: no row, but list",
    ]
    whole = tmp_path / "whole.tar"
    write_tar(
        whole, {f"{n}.{kind}": picture(n) if kind == "png" else b"x" for n in range(9) for kind in ("png", "txt")}
    )
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DataError):
        rows_of(tmp_path / "cut.tar")
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = MAX_BYTES + 1
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="more than"):
        read_picture("large.tar/1.png", tmp_path, 8)


def test_pictures_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkling.train.encode.KEPT_BYTES", 2 * 3 * 8 * 8)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    eyes = Eyes(token=1, count=1, size=8, folder=tmp_path)
    assert [int(eyes.read(f"{number}.png")[0, 0, 0]) for number in (0, 1, 2)] == [0, 1, 2]
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(100 + number))
    assert [int(eyes.read(f"{number}.png")[0, 0, 0]) for number in (1, 2, 0)] == [1, 2, 100]  # two are kept
    assert isinstance(eyes.read("0.png"), np.ndarray)
