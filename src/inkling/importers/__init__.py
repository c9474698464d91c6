"""Models that others made. A public file in this folder reads one kind of source; the source is never touched."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from inkling.errors import ModelError
from inkling.importers._imported import ImportedModel
from inkling.tokenizer import Tokenizer

__all__ = ["ImportedModel", "Importer", "load", "names", "read"]


class Importer(Protocol):
    """What the module of a kind of source exports.

    Attributes:
        WHAT: The kind, for people.
        ORDER: Kinds with a lower one are asked first.
    """

    WHAT: str
    ORDER: int

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether this looks like such a source, by its names and first bytes."""

    @staticmethod
    def read(path: Path, tokenizer: Tokenizer | None) -> ImportedModel:
        """Read it. Raises ModelError or TokenizerError, naming what cannot be taken in.

        Args:
            tokenizer: To use instead of the source's own.
        """


def names() -> list[str]:
    """All kinds of sources."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Importer:
    """The module of a kind."""
    return cast(Importer, importlib.import_module(f"{__name__}.{name}"))


def read(path: Path, tokenizer: Tokenizer | None = None) -> tuple[str, ImportedModel]:
    """The kind of a source, and the model in it. Raises ModelError for what is of no kind that is known."""
    if not path.exists():
        raise ModelError(f"{path} does not exist")
    modules = {name: load(name) for name in names()}
    for name, module in sorted(modules.items(), key=lambda item: item[1].ORDER):
        if module.recognises(path):
            return name, module.read(path, tokenizer)
    known = ", ".join(module.WHAT for module in modules.values())
    raise ModelError(f"{path} is no model that can be taken in (known: {known})")
