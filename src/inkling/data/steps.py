"""The steps from sources to portions, as plain callables `step(documents, rank, world_size) -> documents`.

That is the contract of datatrove's executors, so the same list runs there; Inkling's own engine runs it a unit at a
time. A step that drops a document says so in the ledger that the steps share, under the document's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from inkling.data.account import Account
from inkling.data.clean import Cleaning, clean
from inkling.data.decontaminate import Benchmark
from inkling.data.documents import Document, Part, Skipped, Unit, read_part
from inkling.data.portions import PortionWriter, is_done

Documents = Iterable[Document]
Step = Callable[[Any, int, int], Iterator[Document]]


class Ledger:
    """The account and notes of each unit that is being worked on."""

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}
        self.notes: dict[int, list[str]] = {}

    def open(self, unit: int) -> None:
        """Begin a unit."""
        self.accounts[unit] = Account()
        self.notes[unit] = []

    def drop(self, document: Document, reason: str, why: str) -> None:
        """Count a document that a step drops."""
        skipped = Skipped(reason, len(document.text.encode()), f"{document.id}: {why}")
        self.accounts[document.metadata["unit"]].drop(skipped)


class Read:
    """The documents of every `world_size`-th unit from `rank` on, but for units that are done; `metadata["unit"]` says
    which. What comes in is passed on first."""

    def __init__(
        self, units: Sequence[tuple[int, Unit]], folder: Path, ledger: Ledger, text_field: str | None = None
    ) -> None:
        self.units = units
        self.text_field = text_field
        self.folder = folder
        self.ledger = ledger

    def __call__(self, documents: Documents | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        yield from documents or ()
        for number, unit in self.units[rank::world_size]:
            if is_done(self.folder, number):
                continue
            self.ledger.open(number)
            for part in unit:
                yield from self._read(number, part)

    def _read(self, number: int, part: Part) -> Iterator[Document]:
        fields: dict[str, set[str]] = {}
        for item in read_part(part, self.text_field):
            if isinstance(item, Skipped):
                self.ledger.accounts[number].drop(item)
                continue
            if item.text_field is not None and item.text_field not in fields:
                fields[item.text_field] = set(item.metadata)
            item.metadata["unit"] = number
            yield item
        for name, others in fields.items():
            more = f", not of {', '.join(sorted(others)[:6])}" if others else ""
            self.ledger.notes[number].append(f"{part.source.name}: text is that of field {name}{more}")
        if part.source.has_changed():
            self.ledger.notes[number].append(f"{part.source.name} changed while it was read")


class Clean:
    """Cleaned documents."""

    def __init__(self, cleaning: Cleaning, ledger: Ledger) -> None:
        self.cleaning = cleaning
        self.ledger = ledger

    def __call__(self, documents: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in documents:
            account = self.ledger.accounts[document.metadata["unit"]]
            result = clean(document, self.cleaning, account.changes)
            if isinstance(result, Skipped):
                account.drop(result)
            else:
                yield result


class Decontaminate:
    """Documents that share no run of words with a benchmark."""

    def __init__(self, benchmark: Benchmark, ledger: Ledger) -> None:
        self.benchmark = benchmark
        self.ledger = ledger

    def __call__(self, documents: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in documents:
            found = self.benchmark.find(document.text)
            if found is None:
                yield document
            else:
                self.ledger.drop(document, "contaminated", found)


class Write:
    """Portions on disk; passes on what it wrote. A unit is finished when its documents are all written."""

    def __init__(self, units: Sequence[tuple[int, Unit]], folder: Path, ledger: Ledger, *, signatures: bool) -> None:
        self.units = dict(units)
        self.folder = folder
        self.ledger = ledger
        self.signatures = signatures

    def __call__(self, documents: Documents, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        writer, current = None, -1
        for document in documents:
            unit = document.metadata["unit"]
            if unit != current:
                self._finish(writer, current)
                writer, current = PortionWriter(self.folder, unit, signatures=self.signatures), unit
            assert writer is not None
            writer.add(document)
            yield document
        self._finish(writer, current)
        for unit in list(self.ledger.accounts):  # no document came out of these
            self._finish(PortionWriter(self.folder, unit, signatures=self.signatures), unit)

    def _finish(self, writer: PortionWriter | None, unit: int) -> None:
        if writer is not None:
            writer.finish(self.ledger.accounts.pop(unit), self.units[unit], self.ledger.notes.pop(unit))


def steps(
    units: Sequence[tuple[int, Unit]],
    folder: Path,
    text_field: str | None = None,
    *,
    cleaning: Cleaning,
    benchmark: Benchmark | None,
    signatures: bool,
) -> list[Step]:
    """All steps from numbered units to portions in `folder`."""
    ledger = Ledger()
    chain: list[Step] = [Read(units, folder, ledger, text_field), Clean(cleaning, ledger)]
    if benchmark is not None:
        chain.append(Decontaminate(benchmark, ledger))
    return [*chain, Write(units, folder, ledger, signatures=signatures)]


def run(chain: Sequence[Step], rank: int = 0, world_size: int = 1) -> int:
    """Run steps to their end; the number of documents that came out."""
    documents: Any = None
    for step in chain:
        documents = step(documents, rank, world_size)
    return sum(1 for _ in documents)
