"""Strings of letters to say again, made on the spot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase

from inkling.eval.tasks import Item, Options, Result, judged
from inkling.eval.tasks._examples import answers_of as references
from inkling.eval.tasks._examples import is_right, make

__all__ = ["constants", "judge", "prompts", "read", "references"]

WHAT = "say a string again, after four examples"
DATA = ""
RUNS_CODE = False
MAX_TOKENS = 24
STOP = ("\n",)


def _one(draw: random.Random) -> tuple[str, str]:
    text = "".join(draw.choice(ascii_lowercase) for _ in range(draw.randint(3, 10)))
    return f"copy {text} :", text


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "copying", _one)


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Examples and question."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Compare the first line."""
    return judged(items, answers, is_right)


def constants(items: Sequence[Item]) -> list[str]:
    """The most frequent answer."""
    return [Counter(item.fields["answer"] for item in items).most_common(1)[0][0]]
