"""Files behind URLs, executors and shares: the same bytes as from a folder of this machine."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import fsspec
import pytest

from conftest import words
from inkling.data import documents
from inkling.data.documents import Document, list_sources, read_documents, read_source
from inkling.data.prep import prep, prep_shard
from inkling.data.prep_options import PrepOptions
from inkling.errors import DataError, MissingExtraError

OPTIONS = PrepOptions(level="char", val_fraction=0.2)


def digest(folder: Path) -> str:
    content = b"".join(path.name.encode() + path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    return hashlib.sha256(content).hexdigest()


def test_an_object_store_is_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fsspec.filesystem("memory")
    text = "\n\n".join(words(number, 50) for number in range(20))
    for name, content in {
        "b/two.md": "two",
        "a.txt": text,
        ".hidden": "no",
        "rows.jsonl": '{"text": "row"}\n{"n": 1}\n',
    }.items():
        store.pipe_file(f"/corpus/{name}", content.encode())
    assert [source.name for source in list_sources(["memory://corpus"])] == [
        "memory:///corpus/a.txt",
        "memory:///corpus/b/two.md",
        "memory:///corpus/rows.jsonl",
    ]
    assert [document.text for document in read_documents(["memory://corpus"])] == [text, "two", "row"]
    monkeypatch.setattr(documents, "UNIT_BYTES", 1000)
    pieces = [
        item.text for item in read_source(list_sources(["memory://corpus/a.txt"])[0]) if isinstance(item, Document)
    ]
    assert len(pieces) > 3
    assert "".join(pieces) == text
    before = list_sources(["memory://corpus/a.txt"])[0].version
    store.pipe_file("/corpus/a.txt", b"other")
    assert list_sources(["memory://corpus/a.txt"])[0].version != before


@pytest.mark.parametrize("url", ["memory://nothing", "nonsense://x", "http://127.0.0.1:9/x.txt"])
def test_what_cannot_be_reached_is_one_line(url: str) -> None:
    with pytest.raises((DataError, MissingExtraError)) as caught:
        list_sources([url])
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)


def test_the_hub_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot list hf:someone/something") as caught:
        list_sources(["hf:someone/something"])
    assert "\n" not in str(caught.value)


def test_shares_read_at_the_same_time_give_the_same_bytes(
    text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "UNIT_BYTES", 2500)
    one, shared = tmp_path / "one", tmp_path / "shared"
    prep([str(text_folder)], one, OPTIONS, num_workers=1)
    read = []

    def share(index: int) -> None:
        read.append(prep_shard([str(text_folder)], shared, OPTIONS, shard=(index, 3), num_workers=1))

    threads = [threading.Thread(target=share, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phases: set[str] = set()
    prep([str(text_folder)], shared, OPTIONS, num_workers=1, on_progress=lambda phase, *progress: phases.add(phase))
    assert digest(one) == digest(shared)
    assert len(read) == 3
    assert min(read) >= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "shared"]


def test_a_share_that_does_not_exist_is_an_error(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--shard 3/3 does not exist: the first is 0/3, the last 2/3"):
        prep_shard([str(text_folder)], tmp_path / "out", OPTIONS, shard=(3, 3))
    prep([str(text_folder)], tmp_path / "out", OPTIONS, num_workers=1)
    with pytest.raises(DataError, match="finished"):
        prep_shard([str(text_folder)], tmp_path / "out", OPTIONS, shard=(0, 3))


@pytest.mark.filterwarnings("ignore")  # of the packages that datatrove imports
def test_on_the_executor_of_datatrove_the_bytes_are_the_same(text_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    one, other = tmp_path / "one", tmp_path / "other"
    prep([str(text_folder)], one, OPTIONS, num_workers=1)
    prep([str(text_folder)], other, OPTIONS, num_workers=1, executor="datatrove")
    assert digest(one) == digest(other)
