"""From logits to the next token.

In this order, which is that of `transformers`: repetition penalty, presence and frequency penalty, temperature, top-k,
top-p, min-p, typical-p, draw. Each filter sees what the one before it left; ties with the last one that top-k keeps
stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from inkling.config import Field, Section
from inkling.errors import ModelError

_LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is taken: dividing fp32 by less gives 0/0."""


class SamplingParams(Section):
    """How the next token is drawn, and when to stop."""

    temperature: float = Field(0.8, ge=0, le=100)
    """Below 1 sharpens, above 1 flattens; 0 takes the likeliest token."""
    top_k: int = Field(0, ge=0)
    """Draw from this many likeliest tokens; 0: from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability (arXiv:1904.09751)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw from tokens at least this likely, relative to the likeliest (arXiv:2407.01082)."""
    typical_p: float = Field(1.0, gt=0, le=1)
    """Draw from the tokens nearest to the expected surprise that together have this probability (arXiv:2202.00666)."""
    repetition_penalty: float = Field(1.0, gt=0, le=100)
    """Above 1 makes tokens of prompt and completion less likely (CTRL, arXiv:1909.05858)."""
    presence_penalty: float = Field(0.0, ge=-10, le=10)
    """Taken from the logit of every token of the completion (OpenAI)."""
    frequency_penalty: float = Field(0.0, ge=-10, le=10)
    """Taken from the logit of a token of the completion, once for each time it stands there (OpenAI)."""
    max_tokens: int = Field(200, ge=1)
    """Length of the completion, in tokens."""
    stop: list[str] = Field([], max_length=16)
    """Strings that end the completion; they are not part of it."""
    truncate_prompt: bool = False
    """Keep the end of a prompt that is too long for the model's context, instead of refusing it."""
    seed: int | None = Field(None, ge=0)
    """Seed of the draws. Default: different each time."""
    kv_cache: Literal["full", "int8"] = "full"
    """Keys and values of earlier tokens as they are, or in 8 bits: a quarter of the memory, for a little time."""
    ignore_eos: bool = False
    """Write on after the end-of-text token."""


def next_token(
    logits: Tensor,
    params: SamplingParams,
    prompt_ids: Sequence[int],
    completion_ids: Sequence[int],
    generator: torch.Generator,
) -> int:
    """Draw the token that follows.

    Args:
        logits: (V,), on the generator's device.

    Raises:
        ModelError: No logit is finite, or one is not a number: the model has diverged in training.
    """
    adjusted = penalise(logits.float(), params, prompt_ids, completion_ids)
    if not adjusted.max().isfinite():
        raise ModelError(
            "the model's output is not finite: its training diverged. Lower the learning rate, train again"
        )
    if params.temperature < _LEAST_TEMPERATURE:
        return int(adjusted.argmax())
    return int(torch.multinomial(distribution(adjusted, params), 1, generator=generator))


def penalise(
    logits: Tensor, params: SamplingParams, prompt_ids: Sequence[int], completion_ids: Sequence[int]
) -> Tensor:
    """The logits (V,) after the three penalties."""
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt_ids, *completion_ids}), device=logits.device, dtype=torch.long)
        values = logits[seen]
        factor = torch.where(values > 0, 1 / params.repetition_penalty, params.repetition_penalty)
        logits = logits.index_copy(0, seen, values * factor)
    if (params.presence_penalty or params.frequency_penalty) and completion_ids:
        counts = torch.bincount(torch.tensor(completion_ids, device=logits.device), minlength=len(logits))
        logits = logits - params.presence_penalty * (counts > 0) - params.frequency_penalty * counts
    return logits


def distribution(logits: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities (V,) after temperature, top-k, top-p and min-p; they add up to 1. Not for temperature 0."""
    logits = (logits - logits.max()) / params.temperature  # at most 0, so that no temperature overflows
    if 0 < params.top_k < len(logits):
        smallest = logits.topk(params.top_k).values[-1]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    if params.top_p < 1:
        ordered, order = logits.softmax(0).sort(descending=True)
        before = ordered.cumsum(0) - ordered  # what is likelier than each token
        logits = logits.index_fill(0, order[before >= params.top_p], float("-inf"))
    if params.min_p > 0:
        logits = logits.masked_fill(logits < math.log(params.min_p), float("-inf"))  # the likeliest is at 0
    if params.typical_p < 1:
        probabilities = logits.softmax(0)
        surprise = -probabilities.clamp(min=1e-45).log()
        distance = (surprise - (probabilities * surprise).sum()).abs()
        order = distance.masked_fill(probabilities == 0, float("inf")).argsort(stable=True)
        before = probabilities[order].cumsum(0) - probabilities[order]
        logits = logits.index_fill(0, order[before >= params.typical_p], float("-inf"))
    return logits.softmax(0)
