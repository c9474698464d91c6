"""From logits to the next token.

In this order, which is that of `transformers`: repetition penalty, presence and frequency penalty, temperature, top-k,
top-p, min-p, typical-p, draw. Each filter sees what the one before it left; ties with the last one that top-k keeps
stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from inkling.config import Field, Section
from inkling.errors import ModelError

_LEAST_TEMPERATURE = 1e-6
"""Below it the likeliest token is taken: dividing fp32 by less gives 0/0."""
NOT_FINITE = "the model's output is not finite: its training diverged. Lower the learning rate, train again"


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
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
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


class Draw(NamedTuple):
    """What the next token of one completion depends on, beside its logits.

    Attributes:
        seed: With the number of tokens written, decides the draw: the same again gives the same token.
    """

    params: SamplingParams
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    seed: int


def next_token(logits: Tensor, draw: Draw) -> int:
    """The token that follows logits (V,).

    Raises:
        ModelError: No logit is finite, or one is not a number: the model has diverged in training.
    """
    token_id = next_tokens(logits[None], [draw])[0]
    if token_id is None:
        raise ModelError(NOT_FINITE)
    return token_id


def next_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """The token that follows each row of logits (B, V); None where the model has diverged.

    A row's token does not depend on the other rows. Drawn as a race: each token's time is exponential with its
    probability as the rate, and the first one wins, so that a change in the last
    bits of one probability moves no other token's chance.
    """
    logits = logits.float()
    if any(has_penalties(draw.params) for draw in draws):
        rows = zip(logits, draws, strict=True)
        logits = torch.stack([penalise(row, draw.params, draw.prompt_ids, draw.completion_ids) for row, draw in rows])
    finite = logits.amax(dim=1).isfinite().tolist()
    chosen: list[int] = logits.argmax(dim=1).tolist()
    drawn = [number for number, draw in enumerate(draws) if draw.params.temperature >= _LEAST_TEMPERATURE]
    if drawn:
        rates = _rates(logits if len(drawn) == len(draws) else logits[drawn], [draws[n] for n in drawn])
        times = exponentials(
            [draws[n].seed for n in drawn], [len(draws[n].completion_ids) for n in drawn], logits.shape[1]
        ).to(logits.device)
        for number, token_id in zip(drawn, rates.div_(times).argmax(dim=1).tolist(), strict=True):
            chosen[number] = token_id
    return [token_id if known else None for token_id, known in zip(chosen, finite, strict=True)]


def has_penalties(params: SamplingParams) -> bool:
    """Whether tokens that were written before count."""
    return bool(params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty)


def has_filters(params: SamplingParams) -> bool:
    """Whether only some tokens are drawn from."""
    return bool(params.top_k or params.top_p < 1 or params.min_p or params.typical_p < 1)


def _rates(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Numbers (B, V) in the ratios of each row's probabilities."""
    if any(has_filters(draw.params) for draw in draws):
        return torch.stack([distribution(row, draw.params) for row, draw in zip(logits, draws, strict=True)])
    temperatures = torch.tensor([draw.params.temperature for draw in draws], device=logits.device)
    return (logits - logits.amax(dim=1, keepdim=True)).div_(temperatures[:, None]).exp_()


def exponentials(seeds: Sequence[int], places: Sequence[int], width: int) -> Tensor:
    """Exponentially distributed numbers, (B, width) fp32: row b is a function of `seeds[b]` and `places[b]` alone.

    Each is -log(1 - u), with u from the finalizer of SplitMix64 (Steele, Lea and Flood, 2014) over a counter.
    """
    keys = [_signed(_mixed(_mixed(seed) + place)) for seed, place in zip(seeds, places, strict=True)]
    bits = torch.tensor(keys)[:, None] + torch.arange(width) * _signed(_GOLDEN)
    bits ^= (bits >> 30).bitwise_and_((1 << 34) - 1)
    bits *= _signed(_FIRST)
    bits ^= (bits >> 27).bitwise_and_((1 << 37) - 1)
    bits *= _signed(_SECOND)
    bits ^= bits >> 31
    uniform = bits.bitwise_and_(0xFFFFFFFF).float().add_(0.5).mul_(-(2.0**-32))  # -1 to 0
    return uniform.log1p_().neg_()


_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def _mixed(number: int) -> int:
    """SplitMix64's next output from a state."""
    number = (number + _GOLDEN) & _WORD
    number = ((number ^ (number >> 30)) * _FIRST) & _WORD
    number = ((number ^ (number >> 27)) * _SECOND) & _WORD
    return number ^ (number >> 31)


def _signed(number: int) -> int:
    """The same 64 bits as torch's integers have them."""
    return number - (1 << 64) if number >> 63 else number


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
