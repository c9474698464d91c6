"""The loss to expect of a run that has not begun: a scaling law, fitted to small runs by `bench/scaling_law.py`.

The form is that of Hoffmann et al. 2022 (arXiv:2203.15556), a sum of powers of model size and training text, where a
larger model needs more text for the same gain, and repeated text is worth less, after Muennighoff et al. 2023
(arXiv:2305.16264). How hard the text is, is taken from the text itself: all is relative to a byte n-gram model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Expected:
    """Bits per byte on validation text, with and without what earlier runs told, and the relative standard error."""

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
    law: Law = LAW,
) -> Expected:
    """What a run will reach on validation text.

    Args:
        block_parameters: Without embedding and head.
        tokens: Trained on, repetitions included.
        text_tokens: In the training text.
        ngram: Bits per byte of `eval.ngrams` on the validation text.
        ratios: What earlier runs on the same text reached, divided by what the law alone said.
    """
    seen = worth(tokens, text_tokens, law.half_worth) * bytes_per_token / 1e6
    size = max(block_parameters, 1.0) / 1e6
    relative = 1 + law.size * size**-law.size_power + law.data * size**law.growth * seen**-law.data_power
    by_law = law.level * ngram * relative
    if not ratios:
        return Expected(by_law, by_law, law.error)
    return Expected(by_law * geometric_mean(ratios), by_law, law.error_after_a_run)


def worth(tokens: float, text_tokens: float, half_worth: float) -> float:
    """How many tokens of new text so many tokens are worth, repetitions counting less and less."""
    unique = min(tokens, text_tokens)
    repetitions = tokens / unique - 1
    return unique * (1 + half_worth * (1 - math.exp(-repetitions / half_worth)))
