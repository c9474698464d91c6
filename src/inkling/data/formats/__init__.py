"""Text formats: one public file is one, matched to a file by its suffix.

Each exports `SUFFIXES` and `read(file, name)`, which turns a binary stream into documents and into what was skipped,
never raises for what the stream holds, and never holds more of it than its limits say. A format whose files can be cut
also exports `border(data)`: how many bytes of `data` still belong to the document before, None when all of them do; its
`read` takes the number of the first line as `first_line`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import PurePath
from types import ModuleType
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats import text


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


def read(file: BinaryIO, name: str, first_line: int = 1) -> Iterator[Document | Skipped]:
    """The documents of a file, by the format of its name."""
    module = for_name(name)
    if hasattr(module, "border"):
        yield from module.read(file, name, first_line)
    else:
        yield from module.read(file, name)
