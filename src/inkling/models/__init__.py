"""Architectures. A public file in this folder is one architecture, found by its name when that name is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch

from inkling.errors import ModelError, did_you_mean
from inkling.models._branches import Branches
from inkling.models._cache import Int8KVCache, KVCache, PlacedTokens
from inkling.models._config import ModelConfig
from inkling.models._cost import Cost, cost
from inkling.models._grow import with_longer_context, with_more_layers, with_more_tokens
from inkling.models._kernels import ON_CUDA, AttentionKernel, Documents, attention_kernel, kernel_for, other_kernels
from inkling.models._layers import product_dtype
from inkling.models._model import LanguageModel, SeeingModel
from inkling.models._rope import inverse_frequencies, ntk_theta, rotary_table
from inkling.models._scaled_dot import PLAIN, Scoring, attend

__all__ = [
    "ON_CUDA",
    "PLAIN",
    "Architecture",
    "AttentionKernel",
    "Branches",
    "Cost",
    "Documents",
    "Int8KVCache",
    "KVCache",
    "LanguageModel",
    "ModelConfig",
    "PlacedTokens",
    "Scoring",
    "SeeingModel",
    "attend",
    "attention_kernel",
    "cost",
    "from_config",
    "inverse_frequencies",
    "kernel_for",
    "load",
    "names",
    "ntk_theta",
    "num_parameters",
    "other_kernels",
    "product_dtype",
    "read_config",
    "rotary_table",
    "with_eyes",
    "with_longer_context",
    "with_more_layers",
    "with_more_tokens",
    "without_memory",
]


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
        raise ModelError(f"there is no architecture {name!r}{did_you_mean(name, names())}")
    return cast(Architecture, importlib.import_module(f"{__name__}.{name}"))


def read_config(values: Mapping[str, Any]) -> ModelConfig:
    """The shape that a `config.json` describes.

    Raises ModelError for an architecture or a feature that Inkling does not compute.
    """
    if not isinstance(values.get("model_type"), str):
        raise ModelError("the configuration names no architecture: it has no model_type")
    return load(values["model_type"]).Config.from_dict(values)


def from_config(values: Mapping[str, Any], *, dropout: float = 0.0) -> LanguageModel:
    """The model that a `config.json` describes, its weights not yet set. Raises ModelError as `read_config`."""
    config = read_config(values)
    return load(config.model_type).Model(config, dropout=dropout)


def without_memory(config: ModelConfig) -> LanguageModel:
    """The model on the meta device: shapes and names, and no bytes."""
    with torch.device("meta"):
        return load(config.model_type).Model(config)


def with_eyes(
    model: LanguageModel, vision: Mapping[str, Any], image_token: int, generator: torch.Generator | None = None
) -> SeeingModel:
    """A trained model of text as one that sees, whose eyes have yet to learn: see `llava.py`.

    Args:
        vision: Shape of the encoder, keys of `VisionConfig`.
        image_token: What stands for a patch: a token that no text has.

    Raises ModelError for an impossible encoder, and for a decoder that cannot be given one.
    """
    from inkling.models import llava

    return llava.with_eyes(model, vision, image_token, generator)


def num_parameters(config: ModelConfig) -> int:
    """Exact number of parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in without_memory(config).parameters())
