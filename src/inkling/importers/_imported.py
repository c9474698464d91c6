"""What every importer returns, and what several need."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkling import models
from inkling.errors import ModelError
from inkling.models import ModelConfig
from inkling.tokenizer import Tokenizer


@dataclass(frozen=True)
class ImportedModel:
    """A model in our names and layouts.

    Attributes:
        weights: In fp32, which holds every fp16 and bf16 number exactly.
        notes: What is worth saying about how it was read.
    """

    config: ModelConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    notes: list[str] = field(default_factory=list)


def check_weights(config: ModelConfig, weights: Mapping[str, Tensor], source: Path) -> None:
    """Raises ModelError, naming them, when tensors are missing, left over or of another shape."""
    if len(weights) < config.least_tensors:  # before the model is built: its shape comes from the same file
        raise ModelError(f"{source} is damaged: {len(weights):,} tensors cannot be {config.num_hidden_layers:,} layers")
    expected = {name: tuple(tensor.shape) for name, tensor in models.without_memory(config).state_dict().items()}
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    wrong = sorted(name for name in expected.keys() & weights.keys() if expected[name] != tuple(weights[name].shape))
    problems = [f"{len(some)} {what}: {', '.join(some[:3])}" for some, what in _named(missing, unknown, wrong) if some]
    if problems:
        raise ModelError(f"{source} cannot be read as {config.model_type}: tensors {'; '.join(problems)}")


def _named(missing: list[str], unknown: list[str], wrong: list[str]) -> list[tuple[list[str], str]]:
    return [(missing, "missing"), (unknown, "without a place"), (wrong, "of another shape")]


def to_fp32(name: str, tensor: Tensor) -> Tensor:
    """A floating-point tensor in fp32. Raises ModelError for other numbers, which are somebody's quantized weights."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(f"the tensor {name} holds {kind}: import the model before it was quantized")
    return tensor.float().contiguous()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A `torch.save` file with tensors and plain values only: nothing in it is run.

    Raises ModelError for a file that is damaged or wants more.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} holds more than tensors and plain values, which could run code when it is opened: refused"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be read ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no checkpoint")
    return content
