"""Where a model can go. A public file in this folder is one target, found by its name when that name is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from inkling.checkpoint import StoredModel
from inkling.errors import ExportError, did_you_mean
from inkling.export._verification import Verification
from inkling.models import ModelConfig
from inkling.tokenizer import Tokenizer

__all__ = ["Target", "Verification", "load", "load_adapter", "names", "objections"]


class Target(Protocol):
    """What a target's module exports.

    Attributes:
        TYPES: Number formats that the weights can have there, the default first.
    """

    TYPES: tuple[str, ...]

    @staticmethod
    def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
        """Why such a model cannot go there, each a clause; empty when it can. No tokenizer: as far as is known."""

    @staticmethod
    def default_path(stored: StoredModel, type_name: str) -> Path:
        """Where it goes when nobody says."""

    @staticmethod
    def write(stored: StoredModel, path: Path, type_name: str) -> None:
        """Write the file or folder, whole or not at all. Raises ExportError, CheckpointError or MissingExtraError."""

    @staticmethod
    def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
        """Open what was written in the runtime that it is for, and compare; None when that is not installed."""


def names() -> list[str]:
    """All targets."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Target:
    """The module of a target. Raises ExportError for an unknown one."""
    if name not in names():
        raise ExportError(f"there is no export to {name!r}{did_you_mean(name, names())}")
    return cast(Target, importlib.import_module(f"{__name__}.{name}"))


def load_adapter() -> Target:
    """The module that writes a tuned run's adapter by itself."""
    return cast(Target, importlib.import_module(f"{__name__}._adapter"))


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> dict[str, list[str]]:
    """Target → why such a model cannot go there; an empty list where it can."""
    return {name: load(name).objections(config, tokenizer) for name in names()}
