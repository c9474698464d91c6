"""An answer in a form that was asked for: upper case, quoted, repeated, in brackets. Made on the spot."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from string import ascii_lowercase

from inkling.eval.tasks import Item, Options, Result, judged
from inkling.eval.tasks._examples import answers_of as references
from inkling.eval.tasks._examples import is_right, make

__all__ = ["constants", "judge", "prompts", "read", "references"]

WHAT = "say a word in the form that is asked for, after four examples"
DATA = ""
RUNS_CODE = False
MAX_TOKENS = 24
STOP = ("\n",)
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


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Examples and question."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Compare the first line."""
    return judged(items, answers, is_right)


def constants(items: Sequence[Item]) -> list[str]:
    """The most frequent answer."""
    return [Counter(item.fields["answer"] for item in items).most_common(1)[0][0]]
