"""Sums and differences of numbers up to three digits, made on the spot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from inkling.eval.tasks import Item, Options, Result, judged
from inkling.eval.tasks._examples import answers_of as references
from inkling.eval.tasks._examples import is_right, make

__all__ = ["constants", "judge", "prompts", "read", "references"]

WHAT = "add and subtract, after four examples"
DATA = ""
RUNS_CODE = False
MAX_TOKENS = 24
STOP = ("\n",)


def _one(draw: random.Random) -> tuple[str, str]:
    digits = draw.randint(1, 3)
    first, second = (draw.randrange(10**digits) for _ in range(2))
    if draw.random() < 0.5:
        return f"{first} + {second} =", str(first + second)
    return f"{max(first, second)} - {min(first, second)} =", str(abs(first - second))


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "arithmetic", _one)


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Examples and question."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Compare the first line."""
    return judged(items, answers, is_right)


def constants(items: Sequence[Item]) -> list[str]:
    """The most frequent answer."""
    return [Counter(item.fields["answer"] for item in items).most_common(1)[0][0]]
