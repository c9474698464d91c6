"""Cleaned text on disk, in portions that fit into memory, and the plan of what becomes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from inkling import files
from inkling.data.clean import Profile, clean
from inkling.data.documents import Document, Skipped, Source, read_source
from inkling.data.shards import SplitName
from inkling.data.split import content_hash

PORTION_BYTES = 16 << 20
"""Source bytes that are read, cleaned and written together."""
TOKENIZER_SAMPLE_CHARACTERS = 100_000_000


@dataclass(frozen=True)
class Entry:
    """A kept document: its place in its portion, hash of its text, length."""

    number: int
    digest: int
    characters: int


@dataclass(frozen=True)
class Portion:
    """Cleaned documents of some sources, one JSON string a line, and beside it what is known about them."""

    path: Path

    def index(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.with_suffix(".index.json").read_text(encoding="utf-8"))
        return content

    def texts(self, numbers: set[int]) -> Iterator[str]:
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number in numbers:
                    yield json.loads(line)


@dataclass(frozen=True)
class Plan:
    """What is kept of each portion, and where the border to validation runs: by hash, or at a character."""

    portions: list[Portion]
    kept: list[list[Entry]]
    validation: set[int]
    cut: int | None
    rule: str

    def texts(self, number: int) -> Iterator[tuple[SplitName, str]]:
        """The texts of one portion with their split; the document that the cut goes through comes as two."""
        entries = self.kept[number]
        before = sum(entry.characters for earlier in self.kept[:number] for entry in earlier)
        for entry, text in zip(entries, self.portions[number].texts({e.number for e in entries}), strict=True):
            if self.cut is None:
                yield ("validation" if entry.digest in self.validation else "train"), text
            else:
                head = min(max(self.cut - before, 0), len(text))
                if head:
                    yield "train", text[:head]
                if head < len(text):
                    yield "validation", text[head:]
            before += len(text)


def portions_of(sources: list[Source]) -> Iterator[list[Source]]:
    """Neighbouring sources, together about PORTION_BYTES."""
    group: list[Source] = []
    for source in sources:
        if group and sum(other.num_bytes for other in group) + source.num_bytes > PORTION_BYTES:
            yield group
            group = []
        group.append(source)
    if group:
        yield group


def read_portion(job: tuple[Path, list[Source], Profile]) -> Portion:
    """Read and clean some sources into `path`. What a killed run left finished is taken as it is."""
    path, sources, profile = job
    portion = Portion(path)
    if path.with_suffix(".index.json").exists():
        return portion
    documents: list[tuple[str, int, int, str]] = []
    skipped: list[Skipped] = []

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for source in sources:
                for item in read_source(source):
                    result = clean(item, profile) if isinstance(item, Document) else item
                    if isinstance(result, Skipped):
                        skipped.append(result)
                        continue
                    file.write(json.dumps(result.text) + "\n")
                    num_bytes = len(result.text.encode())
                    documents.append((f"{content_hash(result.text):x}", len(result.text), num_bytes, result.id))

    files.write_file(path, write)
    index = {
        "documents": documents,
        "skipped": [asdict(item) for item in skipped],
        "sources": [{"path": source.name, "bytes": source.num_bytes, "sha256": _hash(source)} for source in sources],
    }
    files.write_json(path.with_suffix(".index.json"), index)
    return portion


def _hash(source: Source) -> str | None:
    """SHA-256 of a source's bytes; None when it cannot be read, which the account says too."""
    try:
        with source.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def tokenizer_sample(plan: Plan) -> Iterator[str]:
    """Training texts for the tokenizer: all of them, or evenly spaced ones when there is much text."""
    total = sum(entry.characters for entries in plan.kept for entry in entries)
    every = -(-total // TOKENIZER_SAMPLE_CHARACTERS)
    for number in range(len(plan.portions)):
        training = (text for split, text in plan.texts(number) if split == "train")
        yield from islice(training, 0, None, every)
