"""Optimizers: one public file is one, found by its name. Each exports `Config` and `build(groups, config)`."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from inkling.errors import ConfigError, did_you_mean


def names() -> list[str]:
    """Names of the optimizers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of an optimizer. Raises ConfigError for an unknown one."""
    if name not in names():
        raise ConfigError(f"there is no optimizer {name!r}{did_you_mean(name, names())}")
    return importlib.import_module(f"inkling.optim.{name}")
