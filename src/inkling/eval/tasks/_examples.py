"""What tasks share that are made on the spot: some examples, then a question of the same form, answered in a line."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from inkling.errors import ConfigError
from inkling.eval.tasks import Item, Options, Result, judged

DATA = ""
RUNS_CODE = False
MAX_TOKENS = 24
STOP = ("\n",)
_COUNT, _SHOTS = 200, 4
_MAX_TRIES = 1000


def make(options: Options, name: str, one: Callable[[random.Random], tuple[str, str]]) -> list[Item]:
    """Questions that differ from each other and from their examples.

    Args:
        one: Draws a question and its answer.

    Raises:
        ConfigError: There are not as many.
    """
    draw = random.Random(f"{name} {options.seed}")
    shots = _SHOTS if options.shots is None else options.shots
    found: list[Item] = []
    asked: set[str] = set()
    tries = 0
    while len(found) < (options.limit or _COUNT):
        examples = [one(draw) for _ in range(shots + 1)]
        question, answer = examples[-1]
        if question in asked or question in [other for other, _ in examples[:-1]]:
            tries += 1
            if tries > _MAX_TRIES:
                raise ConfigError(f"{name} has hardly more than {len(found):,} different questions: lower --limit")
            continue
        tries = 0
        asked.add(question)
        before = "".join(f"{q} {a}\n" for q, a in examples[:-1])
        found.append(Item(f"{name}/{len(found)}", f"{before}{question}", {"answer": answer}))
    return found


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Examples and question."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Whether the first line is the answer."""
    return judged(items, answers, _is_right)


def _is_right(item: Item, answer: str) -> bool:
    lines = answer.strip().splitlines()
    return bool(lines) and lines[0].strip() == item.fields["answer"]


def constants(items: Sequence[Item]) -> list[str]:
    """The most frequent answer."""
    return [Counter(references(items)).most_common(1)[0][0]]


def references(items: Sequence[Item]) -> list[str]:
    """The right answers."""
    return [item.fields["answer"] for item in items]
