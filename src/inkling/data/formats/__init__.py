"""Text formats: one public file is one. Each exports `SUFFIXES` and `read(path)`; a file is matched by its suffix."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from inkling.data.formats import text


def names() -> list[str]:
    """Names of the formats."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@cache
def _by_suffix() -> dict[str, ModuleType]:
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names()]
    return {suffix: module for module in modules for suffix in module.SUFFIXES}


def for_path(path: Path) -> ModuleType:
    """The format of a file, by its suffix; plain text when no format claims it."""
    return _by_suffix().get(path.suffix.lower(), text)
