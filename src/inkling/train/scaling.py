"""The loss to expect of a run that has not begun: a scaling law, fitted to small runs by `bench/scaling_law.py`.

The form is that of Hoffmann et al. 2022 (arXiv:2203.15556), a sum of powers of model size and training text, where a
larger model needs more text for the same gain, and repeated text is worth less, after Muennighoff et al. 2023
(arXiv:2305.16264). How hard the text is, is taken from the text itself: all is relative to a byte n-gram model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean


@dataclass(frozen=True)
class Law:
    """bits per byte = level · n-gram · (1 + size · N^-size_power + data · N^growth · B^-data_power).

    N is in millions of parameters without embedding and head, B in millions of bytes trained on, each repetition worth
    less than the one before (R* of Muennighoff et al. is `half_worth`).
    """

    level: float
    size: float
    size_power: float
    data: float
    data_power: float
    growth: float
    half_worth: float
    error: float
    """Relative standard error on a text that the fit has not seen."""
    error_after_a_run: float
    """The same when a run on that text has shown how far off the law is there."""


LAW = Law(
    level=0.5861,
    size=0.1147,
    size_power=0.4783,
    data=0.5077,
    data_power=0.4279,
    growth=0.158,
    half_worth=15.0,
    error=0.08,
    error_after_a_run=0.07,
)
"""`bench/results/scaling_law.md`."""


PILOT_TRUST = 0.8
"""How much of what two pilots tell about the slope still holds when a run is twice as long as the longer of them."""
PILOT_ERROR = 0.035
"""Relative standard error for each time that a run is twice as long as its longest pilot: `bench/results/pilot.md`."""
SCORE_ERROR = 0.01
"""That of a pilot's own score: it is taken on a part of the validation text."""


@dataclass(frozen=True)
class Expected:
    """Bits per byte on validation text, with and without what other runs told, and the relative standard error."""

    bits_per_byte: float
    by_law: float
    error: float


def expected(
    *,
    block_parameters: float,
    tokens: float,
    text_tokens: float,
    bytes_per_token: float,
    ngram: float,
    ratios: Sequence[float] = (),
    pilots: Mapping[float, float] | None = None,
    law: Law = LAW,
) -> Expected:
    """What a run will reach on validation text.

    Args:
        block_parameters: Without embedding and head.
        tokens: Trained on, repetitions included.
        text_tokens: In the training text.
        ngram: Bits per byte of `eval.ngrams` on the validation text.
        ratios: What earlier runs on the same text reached, divided by what the law alone said.
        pilots: What shorter runs like this one reached, by their tokens. The nearer to `tokens`, the more they count.
    """

    size = max(block_parameters, 1.0) / 1e6

    def seen(tokens: float) -> float:
        return worth(tokens, text_tokens, law.half_worth) * bytes_per_token / 1e6

    def by_law(seen: float) -> float:
        relative = 1 + law.size * size**-law.size_power + law.data * size**law.growth * seen**-law.data_power
        return float(law.level * ngram * relative)

    alone = by_law(seen(tokens))
    told, error = alone, law.error
    if ratios:
        told, error = alone * geometric_mean(ratios), law.error_after_a_run
    if pilots:
        bits, doublings = extrapolated(seen(tokens), {seen(length): bits for length, bits in pilots.items()}, by_law)
        pilot_error = math.hypot(SCORE_ERROR, PILOT_ERROR * doublings)
        weight = error**2 / (error**2 + pilot_error**2)  # each counts by the inverse of its variance
        told, error = bits**weight * told ** (1 - weight), pilot_error * math.sqrt(weight)
    return Expected(told, alone, error)


def extrapolated(seen: float, pilots: Mapping[float, float], by_law: Callable[[float], float]) -> tuple[float, float]:
    """What pilots say of a run that sees more text than they do, and how many times that is twice their text.

    From the longest pilot on, the loss falls by some power of the text. At first that is the power between it and the
    one half as long, and bit by bit that of the law, which knows other texts: each doubling leaves `PILOT_TRUST`.
    """
    longest = max(pilots)
    doublings = math.log2(seen / longest)
    fall = math.log(by_law(longest) / by_law(seen))
    shorter = [length for length in pilots if length < longest]
    if shorter and doublings > 0:
        before = min(shorter, key=lambda length: abs(math.log(2 * length / longest)))
        power = math.log(pilots[before] / pilots[longest]) / math.log2(longest / before)
        decay = -math.log(PILOT_TRUST) * doublings
        trust = (1 - math.exp(-decay)) / decay  # the mean over the distance
        fall = trust * power * doublings + (1 - trust) * fall
    return pilots[longest] * math.exp(-fall), doublings


def worth(tokens: float, text_tokens: float, half_worth: float) -> float:
    """How many tokens of new text so many tokens are worth, repetitions counting less and less."""
    unique = min(tokens, text_tokens)
    repetitions = tokens / unique - 1
    return unique * (1 + half_worth * (1 - math.exp(-repetitions / half_worth)))
