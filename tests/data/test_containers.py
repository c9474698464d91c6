"""Compressed files and archives: what is inside is read as if it lay in a folder, within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import words
from inkling.data import formats
from inkling.data.documents import Document, Skipped, read_documents
from inkling.data.formats import _container

FUZZ = settings(max_examples=60, deadline=None)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
FILES = {f"{number}.txt": words(number, 40) for number in range(4)} | {
    "sub/rows.jsonl": '{"text": "a row of text"}\n{bad\n{"text": "another row"}\n',
    "sub/page.html": "<p>A page</p>",
}


def read(data: bytes, name: str) -> list[Document | Skipped]:
    return list(formats.read(io.BytesIO(data), name))


def texts(data: bytes, name: str) -> list[str]:
    return [item.text for item in read(data, name) if isinstance(item, Document)]


def reasons(data: bytes, name: str) -> list[str]:
    return [item.reason for item in read(data, name) if isinstance(item, Skipped)]


def tar_of(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_read_like_the_file_in_it(suffix: str) -> None:
    rows = FILES["sub/rows.jsonl"].encode()
    plain = read(rows, "rows.jsonl")
    assert read(COMPRESS[suffix](rows), f"rows.jsonl{suffix}") == plain
    twice = COMPRESS[suffix](rows) + COMPRESS[suffix](rows)
    assert [getattr(item, "text", None) for item in read(twice, f"rows.jsonl{suffix}")] == [
        "a row of text",
        None,
        "another row",
    ] * 2


@pytest.mark.parametrize("pack", ["zip", "tar", "tgz", "txz", "tzst", "tar.bz2", "stored"])
def test_an_archive_is_read_like_the_folder_it_was_made_of(tmp_path: Path, pack: str) -> None:
    folder = tmp_path / "folder"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    packed = {
        "zip": lambda: zip_of(FILES),
        "stored": lambda: zip_of(FILES, zipfile.ZIP_STORED),
        "tar": lambda: tar_of(FILES),
        "tgz": lambda: gzip.compress(tar_of(FILES)),
        "txz": lambda: lzma.compress(tar_of(FILES)),
        "tzst": lambda: COMPRESS[".zst"](tar_of(FILES)),
        "tar.bz2": lambda: bz2.compress(tar_of(FILES)),
    }[pack]()
    archive = tmp_path / f"a.{'zip' if pack == 'stored' else pack}"
    archive.write_bytes(packed)
    wanted = [document.text for document in read_documents([folder])]
    assert sorted(document.text for document in read_documents([archive])) == sorted(wanted)


def test_containers_inside_containers_to_a_depth() -> None:
    inner = {"rows.jsonl.gz": gzip.compress(b'{"text": "deep inside"}\n')}
    assert texts(zip_of({"b.tar": tar_of({"c.zip": zip_of(inner)})}), "a.zip") == ["deep inside"]
    data, name = b"core", "a.txt"
    for _ in range(5):
        data, name = gzip.compress(data), f"{name}.gz"
    assert reasons(data, name) == ["nested_too_deep"]


def test_a_parquet_file_in_a_stream_is_read() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["one text", "two texts"]}), buffer)
    assert texts(gzip.compress(buffer.getvalue()), "a.parquet.gz") == ["one text", "two texts"]
    assert texts(tar_of({"a.parquet": buffer.getvalue()}), "a.tar") == ["one text", "two texts"]


@pytest.mark.parametrize("suffix", [*COMPRESS, ".zip", ".tar.gz", ".tar.zst"])
def test_a_bomb_is_stopped_at_the_limit_and_what_came_before_stays(
    monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(_container, "MAX_BYTES", 3_000_000)
    monkeypatch.setattr(_container, "MAX_RATIO", 2)
    bomb = b'{"text": "zeros"}\n' + b"0" * 30_000_000 + b"\n"
    archives = {
        ".zip": zip_of,
        ".tar.gz": lambda f: gzip.compress(tar_of(f)),
        ".tar.zst": lambda f: COMPRESS[".zst"](tar_of(f)),
    }
    if suffix in archives:
        data, name = archives[suffix]({"a.jsonl": bomb, "b.txt": b"never reached"}), f"a{suffix}"
    else:
        data, name = COMPRESS[suffix](bomb), f"a.jsonl{suffix}"
    spent = []
    spend = _container.Budget.spend
    monkeypatch.setattr(_container.Budget, "spend", lambda self, n: (spent.append(n), spend(self, n)))
    items = read(data, name)
    assert items[0] == Document("zeros", items[0].id) if isinstance(items[0], Document) else False
    assert [item.reason for item in items[1:] if isinstance(item, Skipped)] == ["archive_bomb"]
    assert len(items) == 2
    assert sum(spent) < 4_000_000


def test_members_that_lead_out_or_are_no_files_are_not_read() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in [
            ("link.txt", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.txt", tarfile.LNKTYPE, "good.txt"),
            ("device.txt", tarfile.CHRTYPE, ""),
            ("folder", tarfile.DIRTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    assert read(buffer.getvalue(), "a.tar") == []
    bad = {
        "../up.txt": "x",
        "/etc/x.txt": "x",
        "a/../../b.txt": "x",
        "C:\\x.txt": "x",
        ".hidden": "x",
        "__MACOSX/x.txt": "x",
    }
    for data, name in [(tar_of(bad | {"good.txt": "good"}), "a.tar"), (zip_of(bad | {"good.txt": "good"}), "a.zip")]:
        assert texts(data, name) == ["good"]
        assert reasons(data, name) == ["unsafe_path"] * 4


def test_encrypted_members_and_unknown_methods_are_named_and_the_others_read() -> None:
    data = bytearray(zip_of({"a.txt": "secret", "b.txt": "open"}))
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    assert reasons(bytes(data), "a.zip") == ["encrypted"]
    assert texts(bytes(data), "a.zip") == ["open"]
    data = bytearray(zip_of({"a.txt": "secret", "b.txt": "open"}))
    data[data.index(b"PK\x01\x02") + 10] = 97
    assert reasons(bytes(data), "a.zip") == ["damaged_archive"]
    assert texts(bytes(data), "a.zip") == ["open"]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_came_before_a_damage_stays(suffix: str) -> None:
    rows = "".join(f'{{"text": "{words(number, 30)!r}"}}\n' for number in range(4000)).encode()
    data = COMPRESS[suffix](rows)
    cut = read(data[: len(data) * 3 // 4], f"rows.jsonl{suffix}")
    assert isinstance(cut[0], Document) or suffix in (".bz2", ".xz")
    assert isinstance(cut[-1], Skipped)
    assert cut[-1].reason == "damaged_archive"
    assert f"rows.jsonl{suffix}" in cut[-1].example


def test_junk_after_a_gzip_file_is_named_and_its_text_kept() -> None:
    data = gzip.compress(b'{"text": "good"}\n') + b"junk"
    assert texts(data, "a.jsonl.gz") == ["good"]
    assert reasons(data, "a.jsonl.gz") == ["damaged_archive"]


GOOD = {
    ".txt.gz": gzip.compress(b"some text\n" * 20),
    ".txt.zst": COMPRESS[".zst"](b"some text\n" * 20),
    ".txt.xz": lzma.compress(b"some text\n" * 20),
    ".txt.bz2": bz2.compress(b"some text\n" * 20),
    ".zip": zip_of({"a.txt": "some text\n" * 20, "b/c.jsonl": '{"text": "row"}\n'}),
    ".tar": tar_of({"a.txt": "some text\n" * 20, "b/c.jsonl": '{"text": "row"}\n'}),
}


@FUZZ
@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("suffix", [*GOOD, ".tgz", ".tzst", ".txz", ".tbz2"])
def test_any_bytes_are_documents_or_reasons(suffix: str, data: bytes) -> None:
    assert all(isinstance(item, (Document, Skipped)) for item in read(data, f"a{suffix}"))


@FUZZ
@given(changes=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4), cut=st.integers(0, 20_000))
@pytest.mark.parametrize("suffix", GOOD)
def test_damaged_archives_are_documents_or_reasons(suffix: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD[suffix])
    for place, value in changes:
        data[place % len(data)] = value
    damaged = bytes(data[: max(1, cut % (2 * len(data)))])
    assert all(isinstance(item, (Document, Skipped)) for item in read(damaged, f"a{suffix}"))
