"""What tasks share that are made on the spot: some examples, then a question of the same form."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from inkling.eval.tasks import Item, Options

_COUNT, _SHOTS = 200, 4


def make(options: Options, name: str, one: Callable[[random.Random], tuple[str, str]]) -> list[Item]:
    """Questions that differ from each other and from their examples.

    Args:
        one: Draws a question and its answer.
    """
    draw = random.Random(f"{name} {options.seed}")
    shots = _SHOTS if options.shots is None else options.shots
    found: list[Item] = []
    asked: set[str] = set()
    while len(found) < (options.limit or _COUNT):
        examples = [one(draw) for _ in range(shots + 1)]
        question, answer = examples[-1]
        if question in asked or question in [other for other, _ in examples[:-1]]:
            continue
        asked.add(question)
        before = "".join(f"{q} {a}\n" for q, a in examples[:-1])
        found.append(Item(f"{name}/{len(found)}", f"{before}{question}", {"answer": answer}))
    return found


def answers_of(items: Sequence[Item]) -> list[str]:
    """The right answers."""
    return [item.fields["answer"] for item in items]


def is_right(item: Item, answer: str) -> bool:
    """Whether the first line is the answer."""
    lines = answer.strip().splitlines()
    return bool(lines) and lines[0].strip() == item.fields["answer"]
