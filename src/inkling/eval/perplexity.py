"""Loss, perplexity and bits per byte of a text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from inkling.data.loader import Batch
from inkling.models import LanguageModel

MAX_LOGITS = 1 << 25
"""Logits that are held at once: 128 MB in fp32."""


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        loss: Nats per token, document ends included.
        bits_per_byte: Total bits over the UTF-8 bytes of the text: comparable across vocabularies, which loss and
            perplexity are not.
    """

    loss: float
    perplexity: float
    bits_per_byte: float
    num_tokens: int
    num_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


@torch.inference_mode()
def evaluate(model: LanguageModel, batches: Iterable[Batch], *, bytes_of_token: np.ndarray) -> Score:
    """Score a model on batches; its training mode and its weights stay as they were.

    Args:
        bytes_of_token: UTF-8 bytes that each id stands for, (V); 0 for special tokens.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    nats, num_tokens, num_bytes = 0.0, 0, 0
    try:
        for batch in batches:
            predicted = batch.targets >= 0
            num_tokens += int(predicted.sum())
            num_bytes += int(bytes_of_token[batch.targets[predicted]].sum())
            nats += _nats(model, batch, device)
    finally:
        model.train(was_training)
    loss = nats / num_tokens if num_tokens else math.nan
    return Score(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=nats / math.log(2) / num_bytes if num_bytes else math.nan,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
    )


def _nats(model: LanguageModel, batch: Batch, device: torch.device) -> float:
    """Total nats of a batch, added up in fp64."""
    segments = batch.segment_ids
    hidden = model.hidden(
        torch.from_numpy(batch.input_ids).to(device),
        segment_ids=None if segments is None else torch.from_numpy(segments).to(device),
    ).flatten(0, 1)  # (B, T, C) -> (B · T, C)
    targets = torch.from_numpy(batch.targets).to(device).flatten()
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    total = 0.0
    for part, wanted in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
        logits = model.logits(part).float()
        total += F.cross_entropy(logits, wanted, reduction="none").double().sum().item()
    return total


def bytes_per_token(token_bytes: list[bytes], vocab_size: int) -> np.ndarray:
    """Number of bytes of each id, (V), from a tokenizer's table; ids beyond it stand for none."""
    lengths = np.zeros(max(vocab_size, len(token_bytes)), dtype=np.int64)
    lengths[: len(token_bytes)] = [len(token) for token in token_bytes]
    return lengths
