"""Sums and differences of numbers up to three digits, made on the spot."""

from __future__ import annotations

import random

from inkling.eval.tasks import Item, Options
from inkling.eval.tasks._examples import DATA, MAX_TOKENS, RUNS_CODE, STOP, constants, judge, make, prompts, references

__all__ = ["DATA", "MAX_TOKENS", "RUNS_CODE", "STOP", "constants", "judge", "prompts", "read", "references"]

WHAT = "add and subtract, after four examples"


def _one(draw: random.Random) -> tuple[str, str]:
    digits = draw.randint(1, 3)
    first, second = (draw.randrange(10**digits) for _ in range(2))
    if draw.random() < 0.5:
        return f"{first} + {second} =", str(first + second)
    return f"{max(first, second)} - {min(first, second)} =", str(abs(first - second))


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "arithmetic", _one)
