"""Parquet, and the Arrow files of Hugging Face data sets: a row is a document. Read by `pyarrow`, an extra."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._rows import TEXT_FIELDS, document_of
from inkling.errors import MissingExtraError

SUFFIXES = (".parquet", ".arrow")
NEEDS_SEEKING = True
TAKES_FIELD = True

_ROWS_AT_ONCE = 256


def read(file: BinaryIO, name: str, text_field: str | None = None) -> Iterator[Document | Skipped]:
    """The documents of one file, in the order of its rows.

    Raises MissingExtraError when pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", f"reading {name}") from None
    number = 0
    try:
        for batch in _batches(file, name):
            if number == 0 and not _may_hold_text(batch.schema, text_field):
                columns = ", ".join(batch.schema.names[:12])
                wanted = f"a text column {text_field!r}" if text_field else "a column of text"
                yield Skipped("no_text_field", batch.nbytes, f"{name}: there is no {wanted}, only {columns}"[:300])
                return
            for row in batch.to_pylist():
                number += 1
                yield document_of(row, f"{name}#{number}", batch.nbytes // batch.num_rows, text_field)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        yield Skipped("damaged_parquet", 0, f"{name}: {reason} (after row {number})")


def _batches(file: BinaryIO, name: str) -> Iterator[Any]:
    """Record batches of a few rows."""
    if name.lower().endswith(".arrow"):
        import pyarrow

        try:
            yield from pyarrow.ipc.open_stream(file)
        except pyarrow.ArrowInvalid:
            file.seek(0)
            reader = pyarrow.ipc.open_file(file)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        return
    from pyarrow import parquet

    yield from parquet.ParquetFile(file).iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False)


def _may_hold_text(schema: Any, text_field: str | None) -> bool:
    from pyarrow import types

    texts = {field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)}
    if text_field is not None:
        return text_field in texts
    return bool(texts) or bool({"messages", "conversations", "chosen", *TEXT_FIELDS} & set(schema.names))
