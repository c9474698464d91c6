"""Cleaned text on disk, in portions that fit into memory, each with an index from which all decisions are made.

`NNNNN-NNN.txt` holds the texts of a portion end to end in UTF-8; `.index.npy` one INDEX row for each; `.keys.npy` and
`.slots.npy` their MinHash signatures; `.ids` where each comes from, a line each; `.rows.jsonl`, if there are any, the
rows of chats and preferences. `NNNNN.json` is written last and ends a unit: what was read, dropped and changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from inkling import files
from inkling.data import minhash
from inkling.data.account import Account
from inkling.data.documents import Document, Part, Source, Unit
from inkling.data.split import as_digests, content_hash

PORTION_BYTES = 16 << 20
"""Text that is written, and later encoded, together."""
MAX_NOTES = 8
_BATCH_BYTES = 1 << 20

INDEX = np.dtype([("digest", "<u8", 2), ("start", "<u4"), ("num_bytes", "<u4"), ("characters", "<u4"), ("is_row", "?")])
"""Hash of a document's text, its place in the portion, its length, and whether it is a row of a chat or preference."""


@dataclass(frozen=True)
class Portion:
    """Cleaned documents on disk."""

    folder: Path
    name: str

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    @cached_property
    def index(self) -> np.ndarray:
        """(documents) INDEX, memory-mapped."""
        return _map(self._path(".index.npy"))

    def column(self, name: str) -> np.ndarray:
        """`digest`, `slots` or `keys-N` of band N, memory-mapped."""
        if name.startswith("keys-"):
            column: np.ndarray = _map(self._path(".keys.npy"))[int(name.removeprefix("keys-"))]
        elif name == "slots":
            column = _map(self._path(".slots.npy"))
        else:
            column = self.index[name]
        return column

    def texts(self, wanted: np.ndarray) -> Iterator[str]:
        """The texts whose numbers are wanted, in order."""
        index = self.index
        with self._path(".txt").open("rb") as file:
            for number in wanted.tolist():
                file.seek(int(index["start"][number]))
                yield file.read(int(index["num_bytes"][number])).decode()

    def ids(self) -> list[str]:
        """Where each document comes from."""
        return self._path(".ids").read_text(encoding="utf-8").split("\n")[:-1]

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Rows of chats and preferences with the number of their document."""
        path = self._path(".rows.jsonl")
        if path.exists():
            with path.open(encoding="utf-8") as file:
                for entry in map(json.loads, file):
                    yield entry["document"], entry["row"]


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


# ---------------------------------------------------------------- writing


class PortionWriter:
    """Writes the documents of one unit as portions.

    Args:
        signatures: Whether MinHash signatures are computed.
    """

    def __init__(self, folder: Path, unit: int, *, signatures: bool) -> None:
        self._folder = folder
        self._unit = unit
        self._signatures = signatures
        self._names: list[str] = []
        self._num_documents = 0
        self._num_bytes = 0
        self._clear()

    def _clear(self) -> None:
        self._texts: list[bytes] = []
        self._digests: list[bytes] = []
        self._characters: list[int] = []
        self._ids: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def add(self, document: Document) -> None:
        """Take one more document."""
        text = document.text.encode()
        if self._size and self._size + len(text) > PORTION_BYTES:
            self._flush()
        if "row" in document.metadata:
            self._rows.append({"document": len(self._texts), "row": document.metadata["row"]})
        self._texts.append(text)
        self._digests.append(content_hash(document.text))
        self._characters.append(len(document.text))
        self._ids.append(document.id.replace("\n", " ") + "\n")
        self._size += len(text)

    def finish(self, account: Account, parts: Unit, notes: list[str]) -> None:
        """Write what is left, then the file that marks the unit as done."""
        if self._texts:
            self._flush()
        account.keep(self._num_documents, self._num_bytes)
        sources = [_describe(part, with_hash=self._num_documents > 0) for part in parts if part.start == 0]
        files.write_json(
            _done(self._folder, self._unit),
            {"portions": self._names, "account": account.as_dict(), "sources": sources, "notes": notes},
        )

    def _flush(self) -> None:
        name = f"{self._unit:05d}-{len(self._names):03d}"
        index = np.zeros(len(self._texts), INDEX)
        index["digest"] = as_digests(self._digests)
        index["num_bytes"] = [len(text) for text in self._texts]
        index["start"] = np.cumsum(index["num_bytes"]) - index["num_bytes"]
        index["characters"] = self._characters
        index["is_row"][[row["document"] for row in self._rows]] = True
        self._write(f"{name}.txt", lambda path: path.write_bytes(b"".join(self._texts)))
        self._write(f"{name}.ids", lambda path: path.write_text("".join(self._ids), encoding="utf-8", newline="\n"))
        self._write_array(f"{name}.index.npy", index)
        if self._signatures:
            signed = np.concatenate([minhash.signatures(batch) for batch in _batches(self._texts)])
            self._write_array(f"{name}.keys.npy", np.ascontiguousarray(signed["keys"].T))
            self._write_array(f"{name}.slots.npy", signed["slots"])
        if self._rows:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows)
            self._write(f"{name}.rows.jsonl", lambda path: path.write_text(lines, encoding="utf-8", newline="\n"))
        self._names.append(name)
        self._num_documents += len(self._texts)
        self._num_bytes += self._size
        self._clear()

    def _write(self, name: str, write: Any) -> None:
        files.write_file(self._folder / name, write)

    def _write_array(self, name: str, array: np.ndarray) -> None:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, array, allow_pickle=False)

        self._write(name, write)


def _batches(texts: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _describe(part: Part, *, with_hash: bool) -> dict[str, Any]:
    """A source for the manifest."""
    source = part.source
    return {"path": source.name, "bytes": source.num_bytes, "sha256": _hash(source) if with_hash else None}


def _hash(source: Source) -> str | None:
    """SHA-256 of a file; None when it cannot be read, which the account says too, or is not on this machine."""
    if source.is_remote:
        return None
    try:
        with Path(source.location).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


# ---------------------------------------------------------------- reading back


def _done(folder: Path, unit: int) -> Path:
    return folder / f"{unit:05d}.json"


def is_done(folder: Path, unit: int) -> bool:
    """Whether a unit is written as a whole."""
    return _done(folder, unit).exists()


@dataclass(frozen=True)
class Portions:
    """All portions of a preparation, as one sequence of documents."""

    portions: list[Portion]
    account: Account
    sources: list[dict[str, Any]]
    notes: list[str]

    @classmethod
    def read(cls, folder: Path, num_units: int) -> Portions:
        """What the finished units of a work folder hold."""
        portions, account, sources, notes = [], Account(), [], []
        for unit in range(num_units):
            content = json.loads(_done(folder, unit).read_text(encoding="utf-8"))
            portions += [Portion(folder, name) for name in content["portions"]]
            account.add(content["account"])
            sources += content["sources"]
            notes += content["notes"]
        different = list(dict.fromkeys(notes))
        if len(different) > MAX_NOTES:
            different[MAX_NOTES:] = [f"and {len(different) - MAX_NOTES} more notes like these"]
        return cls(portions, account, sources, different)

    @cached_property
    def starts(self) -> np.ndarray:
        """(portions + 1): number of the first document of each."""
        return np.cumsum([0, *(len(portion.index) for portion in self.portions)])

    @property
    def num_documents(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> Iterator[np.ndarray]:
        """A column of the index, portion by portion."""
        return (portion.column(name) for portion in self.portions)

    def whole_column(self, name: str) -> np.ndarray:
        """A column of the index in memory."""
        return np.concatenate([np.empty(0, np.int64), *self.column(name)])

    def texts(self, numbers: np.ndarray) -> Iterator[str]:
        """The texts of some documents, whose numbers are sorted."""
        for portion, start in zip(self.portions, self.starts.tolist(), strict=False):
            first, last = np.searchsorted(numbers, [start, start + len(portion.index)])
            yield from portion.texts(numbers[first:last] - start)

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """Where some documents come from. Reads a file for each, so it is for a few."""
        found = []
        for number in numbers:
            portion = int(np.searchsorted(self.starts, number, side="right")) - 1
            found.append(self.portions[portion].ids()[number - int(self.starts[portion])])
        return found


def count_reasons(account: Account) -> str:
    """The most frequent reasons, in words."""
    return ", ".join(f"{reason} {count}" for reason, count in Counter(account.dropped).most_common(4))
