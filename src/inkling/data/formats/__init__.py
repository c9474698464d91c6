"""Text formats: one public file is one, matched to a file by its suffix.

Each exports `SUFFIXES` and `read(file, name, …)`, which turns a binary stream into documents and into what was skipped,
never raises for what the stream holds, and never holds more of it than its limits say. What else a format may export:

    TAKES_FIELD     its rows have fields: `read` takes `text_field`
    NEEDS_SEEKING   it cannot be read as a stream
    IS_CONTAINER    other files are inside: `read` takes `reading`
    border(data)    its files can be cut: how many bytes of `data` still belong to the document before, None when all of
                    them do; `read` takes the number of the first line as `first_line`
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import PurePath
from types import ModuleType
from typing import Any, BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats import text
from inkling.data.formats._container import Reading, seekable

__all__ = ["Reading", "for_name", "names", "read"]


def names() -> list[str]:
    """Names of the formats."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@cache
def _by_suffix() -> dict[str, ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    return {suffix: module for module in modules for suffix in module.SUFFIXES}


def for_name(name: str) -> ModuleType:
    """The format of a file, by its suffix; plain text when no format claims it."""
    from inkling.data.formats import builtin

    if name.startswith(f"{builtin.PROSE}/"):
        return builtin
    return _by_suffix().get(PurePath(name).suffix.lower(), text)


def read(
    file: BinaryIO, name: str, reading: Reading | None = None, *, place: str | None = None, first_line: int = 1
) -> Iterator[Document | Skipped]:
    """The documents of a file, by the format of its name.

    Args:
        reading: How deep in containers the file lies, and what was said about all files.
        place: What documents are named by; the name, where it is not given.
        first_line: Number of the file's first line.
    """
    module = for_name(name)
    reading = reading or Reading()
    more: dict[str, Any] = {}
    if getattr(module, "TAKES_FIELD", False):
        more["text_field"] = reading.text_field
    if getattr(module, "IS_CONTAINER", False):
        more["reading"] = reading
    if hasattr(module, "border"):
        more["first_line"] = first_line
    if getattr(module, "NEEDS_SEEKING", False):
        with seekable(file) as whole:
            yield from module.read(whole, place or name, **more)
    else:
        yield from module.read(file, place or name, **more)
