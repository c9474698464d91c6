"""Loss, perplexity and bits per byte of a text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from inkling.data.loader import Batch
from inkling.eval.statistics import Estimate, bootstrap
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


@dataclass(frozen=True)
class DocumentScores:
    """How well a model predicts each of some documents, in their order: (N) each.

    Attributes:
        nats: Of all tokens of a document, its end included.
    """

    nats: np.ndarray
    num_tokens: np.ndarray
    num_bytes: np.ndarray

    @property
    def whole(self) -> Score:
        """Of all together."""
        return _score(float(self.nats.sum()), int(self.num_tokens.sum()), int(self.num_bytes.sum()))

    @property
    def bits_per_byte(self) -> Estimate:
        """Of all together, with its interval over documents."""
        bits = self.nats / math.log(2)
        low, high = bootstrap(bits, self.num_bytes)
        return Estimate(self.whole.bits_per_byte, low, high, len(bits))

    def by_length(self) -> dict[str, DocumentScores]:
        """Those of documents of about the same length in bytes."""
        found = {}
        for low, high in pairwise(_LENGTHS):
            chosen = (self.num_bytes >= low) & (self.num_bytes < high)
            if chosen.any():
                name = f"{low:,} bytes and more" if high == math.inf else f"{low:,} to {int(high) - 1:,} bytes"
                found[name] = self.part(chosen)
        return found

    def part(self, chosen: np.ndarray | slice) -> DocumentScores:
        """Those of some documents."""
        return DocumentScores(self.nats[chosen], self.num_tokens[chosen], self.num_bytes[chosen])


_LENGTHS = (0, 1000, 4000, 16_000, 64_000, math.inf)


@torch.inference_mode()
def evaluate_documents(
    model: LanguageModel, batches: Iterable[Batch], *, bytes_of_token: np.ndarray, eot_id: int
) -> DocumentScores:
    """Score a model on each document of a text that comes in order; what is not predicted counts for nothing.

    Args:
        bytes_of_token: As for `evaluate`.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    sums: list[np.ndarray] = []  # of each batch: nats, tokens and bytes by document, the first of them going on
    try:
        for batch in batches:
            targets = batch.targets.ravel()
            predicted = targets >= 0
            targets, nats = targets[predicted], _token_nats(model, batch, device)[predicted]
            documents = np.concatenate([[0], np.cumsum(targets == eot_id)])[:-1]
            weights = (nats, np.ones(len(targets)), bytes_of_token[targets])
            count = int((targets == eot_id).sum()) + 1
            sums.append(np.stack([np.bincount(documents, weight, minlength=count) for weight in weights]))
    finally:
        model.train(was_training)
    joined: list[np.ndarray] = []
    for part in sums:
        if joined:
            joined[-1][:, -1] += part[:, 0]
            part = part[:, 1:]
        joined.append(part.copy())
        if not part.shape[1]:
            joined.pop()
    table = np.concatenate(joined, axis=1) if joined else np.zeros((3, 0))
    table = table[:, table[1] > 0]
    return DocumentScores(table[0], table[1].astype(np.int64), table[2].astype(np.int64))


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
            nats += float(_token_nats(model, batch, device).sum())
    finally:
        model.train(was_training)
    return _score(nats, num_tokens, num_bytes)


def _score(nats: float, num_tokens: int, num_bytes: int) -> Score:
    loss = nats / num_tokens if num_tokens else math.nan
    return Score(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_byte=nats / math.log(2) / num_bytes if num_bytes else math.nan,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
    )


def _token_nats(model: LanguageModel, batch: Batch, device: torch.device) -> np.ndarray:
    """Nats of each target, (B · T) fp64; 0 for those that are not predicted."""
    segments = batch.segment_ids
    hidden = model.hidden(
        torch.from_numpy(batch.input_ids).to(device),
        segment_ids=None if segments is None else torch.from_numpy(segments).to(device),
    ).flatten(0, 1)  # (B, T, C) -> (B · T, C)
    targets = torch.from_numpy(batch.targets).to(device).flatten()
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    found = []
    for part, wanted in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True):
        logits = model.logits(part).float()
        found.append(F.cross_entropy(logits, wanted, reduction="none").double().cpu())
    return torch.cat(found).numpy()


def bytes_per_token(token_bytes: list[bytes], vocab_size: int) -> np.ndarray:
    """Number of bytes of each id, (V), from a tokenizer's table; ids beyond it stand for none."""
    lengths = np.zeros(max(vocab_size, len(token_bytes)), dtype=np.int64)
    lengths[: len(token_bytes)] = [len(token) for token in token_bytes]
    return lengths
