"""Strings of letters to say again, made on the spot."""

from __future__ import annotations

import random
from string import ascii_lowercase

from inkling.eval.tasks import Item, Options
from inkling.eval.tasks._examples import DATA, MAX_TOKENS, RUNS_CODE, STOP, constants, judge, make, prompts, references

__all__ = ["DATA", "MAX_TOKENS", "RUNS_CODE", "STOP", "constants", "judge", "prompts", "read", "references"]

WHAT = "say a string again, after four examples"


def _one(draw: random.Random) -> tuple[str, str]:
    text = "".join(draw.choice(ascii_lowercase) for _ in range(draw.randint(3, 10)))
    return f"copy {text} :", text


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "copying", _one)
