"""Architectures. A public file in this folder is one architecture, found by its name when that name is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch

from inkling.errors import ModelError, did_you_mean
from inkling.models._cache import KVCache
from inkling.models._model import LanguageModel, ModelConfig

__all__ = ["Architecture", "KVCache", "LanguageModel", "ModelConfig", "from_config", "load", "names", "num_parameters"]


class Architecture(Protocol):
    """What an architecture's module exports."""

    Config: type[ModelConfig]
    Model: type[LanguageModel]
    SIZES: dict[str, dict[str, Any]]


def names() -> list[str]:
    """All architectures."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Architecture:
    """The module of an architecture. Raises ModelError for an unknown one."""
    if name not in names():
        raise ModelError(f"there is no architecture {name!r}{did_you_mean(name, names())}. Run: inkling models")
    return cast(Architecture, importlib.import_module(f"{__name__}.{name}"))


def from_config(config: Mapping[str, Any], *, dropout: float = 0.0) -> LanguageModel:
    """The model that a `config.json` describes, its weights not yet set.

    Raises ModelError for an architecture or a feature that Inkling does not compute.
    """
    architecture = load(str(config.get("model_type")))
    return architecture.Model(architecture.Config.from_dict(config), dropout=dropout)


def num_parameters(config: ModelConfig) -> int:
    """Exact number of parameters, tied ones counted once. Allocates no memory for them."""
    with torch.device("meta"):
        model = load(config.model_type).Model(config)
    return sum(parameter.numel() for parameter in model.parameters())
