"""CSV and TSV (RFC 4180, cells with line ends included): a row is a document. The first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode
from inkling.data.formats._rows import TEXT_FIELDS, document_of

SUFFIXES = (".csv", ".tsv")
TAKES_FIELD = True

MAX_ROW_BYTES = 16 << 20
"""A longer row is skipped, so that memory stays bounded."""
_DELIMITERS = (",", ";", "\t", "|")


def read(file: BinaryIO, name: str, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of one file, named by the first line of their row."""
    columns: list[str] | None = None
    delimiter = "\t" if name.lower().endswith(".tsv") else None
    for line, data in _rows(file):
        place = f"{name}:{line}"
        if data is None:
            yield Skipped("too_long", MAX_ROW_BYTES, f"{place}: a row of more than {MAX_ROW_BYTES / 1e6:.0f} MB")
            continue
        text = decode(data, place)
        if isinstance(text, Skipped):
            yield text
            continue
        if delimiter is None:
            delimiter = max(_DELIMITERS, key=text.count)
        try:
            cells = _cells(text, delimiter)
        except csv.Error as error:
            yield Skipped("bad_row", len(data), f"{place}: {error}"[:200])
            continue
        if not any(cells):
            continue
        if columns is None:
            columns = _columns(cells)
            if columns == cells:
                continue
        if len(cells) != len(columns):
            yield Skipped("bad_row", len(data), f"{place}: {len(cells)} cells instead of {len(columns)}")
        else:
            yield document_of(dict(zip(columns, cells, strict=True)), place, len(data), text_field)


def _rows(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """First line and bytes of each row; None for one that is too long. A row goes on while a quote is open."""
    line = 0
    while data := file.readline(MAX_ROW_BYTES):
        first, whole = line + 1, bytearray(data)
        line += data.endswith(b"\n")
        quotes = data.count(b'"')
        while (quotes % 2 or not whole.endswith(b"\n")) and len(whole) < MAX_ROW_BYTES:
            data = file.readline(MAX_ROW_BYTES - len(whole))
            if not data:
                break
            whole += data
            quotes += data.count(b'"')
            line += data.endswith(b"\n")
        if len(whole) >= MAX_ROW_BYTES and not whole.endswith(b"\n"):
            while (data := file.readline(1 << 20)) and not data.endswith(b"\n"):
                pass
            line += 1
            yield first, None
        elif len(whole) >= MAX_ROW_BYTES:
            yield first, None
        else:
            yield first, bytes(whole)


def _cells(text: str, delimiter: str) -> list[str]:
    """The cells of one row, by RFC 4180: a quoted cell may hold delimiters, line ends and doubled quotes."""
    if '"' not in text:
        return text.rstrip("\r\n").split(delimiter)
    limit = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        return [cell for row in csv.reader([text], delimiter=delimiter) for cell in row]
    finally:
        csv.field_size_limit(limit)


def _columns(cells: list[str]) -> list[str]:
    """The names in a first row; names made up when it looks like any other row."""
    names = [cell.strip() for cell in cells]
    usual = any(name.lower() in TEXT_FIELDS for name in names)
    short = all(name and len(name) <= 40 and not name.replace(".", "").isdigit() for name in names)
    if len(set(names)) == len(names) and (usual or (short and all(len(name.split()) <= 4 for name in names))):
        return cells
    return [f"column{number}" for number in range(1, len(cells) + 1)]
