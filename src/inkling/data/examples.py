"""Rows of chats and preferences from files or a data folder, split for validation by their prompts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkling.data.captions import row_documents
from inkling.data.chats import AnyRow, as_question, recognise
from inkling.data.documents import Skipped
from inkling.data.rows import ROWS_FILES
from inkling.data.shards import MANIFEST_FILE
from inkling.errors import DataError

_SHOWN_BAD_ROWS = 3


@dataclass
class Examples:
    """Rows to learn from, and to be judged by.

    Attributes:
        shapes: How many rows were written in which way, for people.
        bad: Why rows were skipped, by place.
        num_duplicates: Rows that were there before.
        sha256: Of all that was taken, in its order.
    """

    train: list[AnyRow] = field(default_factory=list)
    validation: list[AnyRow] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    num_duplicates: int = 0
    sha256: str = ""

    def sentence(self) -> str:
        """What there is, for people."""
        kinds = ", ".join(f"{count:,} rows of {shape}" for shape, count in self.shapes.most_common())
        parts = [f"{kinds}: {len(self.train):,} to learn from, {len(self.validation):,} for validation"]
        if self.num_duplicates:
            parts.append(f"{self.num_duplicates:,} duplicates left out")
        if self.bad:
            parts.append(f"{len(self.bad):,} bad rows skipped ({'; '.join(self.bad[:_SHOWN_BAD_ROWS])})")
        return "; ".join(parts)


def read_examples(
    data: Path, validation: Path | None, *, val_fraction: float, skip_bad: bool, seed: int = 0
) -> Examples:
    """The rows of a file, a folder of files, or a data folder made by `inkling prep`, which brings its own split.

    Elsewhere rows are split by the hash of their prompts, so that no prompt is on both sides; where validation rows
    are given apart, training rows with their prompts are left out.

    Args:
        skip_bad: Leave rows out that cannot be used, and count them.

    Raises:
        DataError: A row cannot be used (named by file and line), or there are none.
    """
    is_prepared = (data / MANIFEST_FILE).is_file()
    if is_prepared and not (data / ROWS_FILES["train"]).is_file():
        raise DataError(f"{data} holds text, not rows of chats or preferences: inkling train {data}")
    own = data / ROWS_FILES["validation"]
    apart = validation or (own if is_prepared and own.is_file() else None)
    found = Examples()
    taken = _Taken()
    if apart is not None:
        found.validation = [row for text, row in _rows(apart, found, skip_bad) if taken.is_new(text)]
        if not found.validation:
            raise DataError(f"there are no rows in {apart}{_why(found)}")
    prompts = {_prompt_key(row) for row in found.validation}
    rows = _rows(data / ROWS_FILES["train"] if is_prepared else data, found, skip_bad)
    found.train = [row for text, row in rows if _prompt_key(row) not in prompts and taken.is_new(text)]
    if apart is None:
        _split(found, val_fraction, seed)
    if not found.train:
        raise DataError(f"there are no rows to learn from in {data}{_why(found)}")
    if not found.validation:
        raise DataError(f"all rows of {data} have the same prompt: name validation rows with --validation")
    found.num_duplicates, found.sha256 = taken.num_duplicates, taken.digest.hexdigest()
    found.shapes = Counter(row.shape for row in [*found.train, *found.validation])
    return found


class _Taken:
    """Rows that were taken, so that none is taken twice."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.num_duplicates = 0
        self._seen: set[str] = set()

    def is_new(self, text: str) -> bool:
        """Whether a row was not there before; takes it then."""
        if text in self._seen:
            self.num_duplicates += 1
            return False
        self._seen.add(text)
        self.digest.update(text.encode())
        return True


def _split(found: Examples, val_fraction: float, seed: int) -> None:
    """Move rows to validation, by the hash of their prompts."""
    places = [hashlib.blake2b(f"{seed}{_prompt_key(row)}".encode(), digest_size=8).digest() for row in found.train]
    distinct = sorted(set(places))
    if len(distinct) < 2:
        return
    border = distinct[max(1, min(len(distinct) - 1, round(val_fraction * len(distinct))))]
    rows = found.train
    found.train = [row for row, place in zip(rows, places, strict=True) if place >= border]
    found.validation = [row for row, place in zip(rows, places, strict=True) if place < border]


def _why(found: Examples) -> str:
    return f": {found.bad[0]}" if found.bad else ""


def _prompt_key(row: AnyRow) -> str:
    return json.dumps(as_question(row).prompt, sort_keys=True)


def _rows(path: Path, found: Examples, skip_bad: bool) -> Iterator[tuple[str, AnyRow]]:
    """The rows of all files, each with its content as text."""
    for document in row_documents(path):
        try:
            yield _row_of(document)
        except DataError as error:
            if not skip_bad:
                raise DataError(f"{error}. Correct it, or leave such rows out with --skip-bad-rows") from None
            found.bad.append(str(error))


def _row_of(document: Any) -> tuple[str, AnyRow]:
    if isinstance(document, Skipped):
        raise DataError(document.example)
    row = document.metadata.get("row")
    if row is None:
        raise DataError(f"{document.id}: this is text, and no row of a chat, an instruction or a preference")
    return json.dumps(row, sort_keys=True, ensure_ascii=False), recognise(row, document.id)


def rows_of(path: Path) -> list[AnyRow]:
    """The rows of a file or folder, in their order. Raises DataError for one that cannot be used."""
    return [row for _, row in _rows(path, Examples(), skip_bad=False)]


def distinct_prompts(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """The first row of each prompt."""
    found: dict[str, AnyRow] = {}
    for row in rows:
        found.setdefault(_prompt_key(row), row)
    return list(found.values())
