"""An answer in a form that was asked for: upper case, quoted, repeated, in brackets. Made on the spot."""

from __future__ import annotations

import random
from collections.abc import Callable
from string import ascii_lowercase

from inkling.eval.tasks import Item, Options
from inkling.eval.tasks._examples import DATA, MAX_TOKENS, RUNS_CODE, STOP, constants, judge, make, prompts, references

__all__ = ["DATA", "MAX_TOKENS", "RUNS_CODE", "STOP", "constants", "judge", "prompts", "read", "references"]

WHAT = "say a word in the form that is asked for, after four examples"
_FORMS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "quote": lambda word: f'"{word}"',
    "twice": lambda word: f"{word} {word}",
    "bracket": lambda word: f"[{word}]",
}


def _one(draw: random.Random) -> tuple[str, str]:
    word = "".join(draw.choice(ascii_lowercase) for _ in range(draw.randint(3, 6)))
    name, form = draw.choice(sorted(_FORMS.items()))
    return f"{name} {word} :", form(word)


def read(options: Options) -> list[Item]:
    """The questions."""
    return make(options, "formats", _one)
