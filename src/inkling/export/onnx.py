"""ONNX: one graph for onnxruntime, with the names of inputs and outputs that `optimum` and transformers.js use.

The graph takes the keys and values of earlier tokens and returns those of all: from an empty past it is the model
without a cache, from its own output the model with one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkling import checkpoint, files
from inkling.checkpoint import StoredModel
from inkling.errors import MissingExtraError
from inkling.export import _onnxruntime
from inkling.export._elsewhere import ask
from inkling.export._verification import Answers, Verification, questions, verdict
from inkling.models import PLAIN, KVCache, LanguageModel, ModelConfig, Scoring, attend
from inkling.tokenizer import Tokenizer

TYPES = ("f32",)
MODEL_FILE = "model.onnx"
OPSET = 23
_MAX_KL = 1e-6
_MAX_EMBEDDED_BYTES = 1 << 28
"""Larger weights go into a file beside the graph: it takes a third of the memory, and a graph holds 2 GB at most."""


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """Why such a model cannot be one graph; empty when it can."""
    if config.model_type == "speedrun":
        return ["its convolutions keep a state that has no name among ONNX's inputs"]
    if config.model_type == "llava":
        return ["a graph that takes pictures is not written here: export it to hf"]
    if not config.cache_shape[2]:
        return ["a cache of latents, which are keys and values in one, has no form here"]
    return []


def default_path(stored: StoredModel, type_name: str) -> Path:
    """`runs/notes` → `notes-onnx`, here."""
    return Path(f"{stored.folder.resolve().name}-onnx")


class _PastCache(KVCache):
    """A cache in the form of tensors that come in and go out: nothing is written in place.

    Args:
        attention_mask: Which slots, past and new, are text: (B, P + T).
    """

    def __init__(self, past: list[Tensor], attention_mask: Tensor) -> None:
        self._past = past
        self._text = attention_mask.bool()
        self.length: Any = past[0].shape[2]
        self.present: list[Tensor] = []

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, T, D) twice -> (B, K, P + T, D) twice."""
        both = tuple(
            torch.cat((before, new), dim=2)
            for before, new in zip(self._past[2 * layer : 2 * layer + 2], (keys, values), strict=True)
        )
        self.present += both
        return both[0], both[1]

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scoring: Scoring = PLAIN,
    ) -> Tensor:
        """As elsewhere; a window is always in the mask, since a graph does not ask how long a text is."""
        assert mask is not None
        if scoring.window is not None:
            slots = torch.arange(self._text.shape[1], device=self._text.device)
            mask = mask & (slots[self.length :, None] - slots[None, :] < scoring.window)
        return attend(queries, *self.append(layer, keys, values), mask, replace(scoring, window=None))

    def advance(self, num_tokens: int) -> None:
        """Nothing is counted: the next call brings its past along."""

    def slots(self, num_tokens: int) -> Tensor:
        """Where the new tokens stand for rotary positions, (T)."""
        return torch.arange(self._text.shape[1], device=self._text.device)[self.length :]

    def positions(self, num_tokens: int) -> Tensor:
        """The place of each new token in its row's text, (B, T)."""
        return (self._text.long().cumsum(dim=1) - 1).clamp(min=0)[:, self.length :]

    def mask(self, num_tokens: int) -> Tensor:
        """Which slots each new token attends to, (B, 1, T, P + T)."""
        slots = torch.arange(self._text.shape[1], device=self._text.device)
        query, key = slots[self.length :, None], slots[None, :]
        return (key <= query) & (self._text[:, None, None, :] | (key == query))


class _Graph(nn.Module):
    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        cache = _PastCache(past, attention_mask)
        logits = self.model(input_ids, cache=cache)
        return logits, *cache.present


def write(stored: StoredModel, path: Path, type_name: str) -> None:
    """Write a folder with the graph, the configuration and the tokenizer.

    Raises MissingExtraError without the packages that torch's exporter needs.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx", "an ONNX file")
    model, tokenizer = checkpoint.load_model(stored.folder)
    config = model.config
    layers = range(config.num_hidden_layers)
    names = [f"{{}}.{layer}.{part}" for layer in layers for part in ("key", "value")]
    heads, *widths = config.cache_shape
    past = [torch.zeros(2, heads, 3, width) for _ in layers for width in widths]
    batch, tokens, before = torch.export.Dim("batch"), torch.export.Dim("tokens"), torch.export.Dim("past")
    arguments = (torch.ones(2, 4, dtype=torch.long), torch.ones(2, 7, dtype=torch.long), past)
    with files.new_folder(path) as folder, _quietly():
        program = torch.onnx.export(
            _Graph(model),
            arguments,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask", *(name.format("past_key_values") for name in names)],
            output_names=["logits", *(name.format("present") for name in names)],
            dynamic_shapes=(
                {0: batch, 1: tokens},
                {0: batch, 1: torch.export.Dim.AUTO},
                [{0: batch, 2: before} for _ in names],
            ),
        )
        assert program is not None
        program.save(folder / MODEL_FILE, external_data=stored_bytes(stored) > _MAX_EMBEDDED_BYTES)
        tokenizer.save(folder, max_length=config.max_position_embeddings)
        for name in (checkpoint.CONFIG_FILE, "generation_config.json"):
            if (stored.folder / name).is_file():
                files.write_text(folder / name, (stored.folder / name).read_text(encoding="utf-8"))


def stored_bytes(stored: StoredModel) -> int:
    """Of the weights in fp32."""
    return 4 * sum(math.prod(shape) for shape in stored.shapes.values())


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch's exporter speaks of its own inner workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# ---------------------------------------------------------------- verifying


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """Run the graph in onnxruntime, without a past and step by step with one; None where that is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    asked = questions(stored)
    heads, *widths = stored.config.cache_shape
    job = {
        "model": str(path.resolve() / MODEL_FILE),
        "past_shapes": [(1, heads, 0, width) for _ in range(stored.config.num_hidden_layers) for width in widths],
        "end_id": stored.tokenizer.eot_id,
        **asdict(asked),
    }
    runtime = f"onnxruntime {importlib.metadata.version('onnxruntime')}"
    found, tables = ask(_onnxruntime.__file__, job, runtime)
    return verdict(stored, asked, Answers(runtime, list(tables), found["greedy"]), max_kl=_MAX_KL, exact=True)
