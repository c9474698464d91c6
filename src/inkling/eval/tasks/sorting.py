"""Digits to put in order, made on the spot."""

from __future__ import annotations

import random
from string import digits as digits_

from inkling.eval.tasks import Item, Options
from inkling.eval.tasks._examples import DATA, MAX_TOKENS, RUNS_CODE, STOP, constants, judge, make, prompts, references

__all__ = ["DATA", "MAX_TOKENS", "RUNS_CODE", "STOP", "constants", "judge", "prompts", "read", "references"]

WHAT = "put digits in order, after four examples"


def _one(draw: random.Random) -> tuple[str, str]:
    digits = [draw.choice(digits_) for _ in range(draw.randint(3, 7))]
    return f"sort {' '.join(digits)} :", " ".join(sorted(digits))


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "sorting", _one)
