"""The loss to expect of a run that has not begun: a scaling law, fitted to small runs by `bench/scaling_law.py`.

The form is that of Hoffmann et al. 2022 (arXiv:2203.15556), a sum of powers of model size and training tokens, with the
worth of repeated text after Muennighoff et al. 2023 (arXiv:2305.16264). What differs from text to text is taken from
the text itself: everything is relative to the bits per byte of a byte trigram model, which takes a second to count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    """bits per byte = trigram · (floor + size · N^-size_power + data · B^-data_power), B the bytes trained on."""

    floor: float
    size: float
    size_power: float
    data: float
    data_power: float
    half_worth: float
    """Passes after which more repetition is worth little: R* of Muennighoff et al."""
    error: float
    """Relative standard error on a text that the fit has not seen."""


LAW = Law(floor=0.3, size=2.0, size_power=0.3, data=60.0, data_power=0.4, half_worth=15.0, error=0.05)


@dataclass(frozen=True)
class Expected:
    """Bits per byte on validation text, and the relative standard error."""

    bits_per_byte: float
    error: float


def expected(
    *,
    block_parameters: float,
    tokens: float,
    text_tokens: float,
    bytes_per_token: float,
    trigram: float,
    law: Law = LAW,
) -> Expected:
    """What a run will reach on validation text.

    Args:
        block_parameters: Without embedding and head.
        tokens: Trained on, repetitions included.
        text_tokens: In the training text.
        trigram: Bits per byte of a byte trigram model on the validation text.
    """
    seen = worth(tokens, text_tokens, law.half_worth) * bytes_per_token
    relative = law.floor + law.size * block_parameters**-law.size_power + law.data * seen**-law.data_power
    return Expected(trigram * relative, law.error)


def worth(tokens: float, text_tokens: float, half_worth: float) -> float:
    """How many tokens of new text so many tokens are worth, repetitions counting less and less."""
    unique = min(tokens, text_tokens)
    repetitions = tokens / unique - 1
    return unique * (1 + half_worth * (1 - math.exp(-repetitions / half_worth)))
