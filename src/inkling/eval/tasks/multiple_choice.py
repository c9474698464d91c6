"""Multiple choice by likelihood, from a file of one's own: question, choices, and the place of the right one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from inkling.errors import DataError
from inkling.eval.statistics import estimate
from inkling.eval.subject import Subject
from inkling.eval.tasks import Item, Options, Result, read_lines

WHAT = "the likeliest of some endings: a file with question, choices and answer (a number from 0) on each line"
DATA = "FILE.jsonl"
RUNS_CODE = False
MAX_TOKENS = 0
STOP = ()


def read(options: Options) -> list[Item]:
    """The questions."""
    found = []
    needed = {"question": str, "choices": list, "answer": int}
    for number, (place, row) in enumerate(read_lines(options, DATA, needed)):
        choices = row["choices"]
        if len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
            raise DataError(f"{place}: a question needs two choices at least, all of them texts")
        if not 0 <= row["answer"] < len(choices):
            raise DataError(f"{place}: there is no choice {row['answer']}, the first of {len(choices)} is 0")
        found.append(Item(str(row.get("id", number)), row["question"], row))
    return found


def grade(items: Sequence[Item], subject: Subject, options: Options) -> Result:
    """How often the right choice is the likeliest: as it is (acc), and by its length in bytes (acc_norm).

    The same as lm-evaluation-harness counts them; a choice is scored after a space.
    """
    pairs = [(item.prompt, f" {choice}") for item in items for choice in item.fields["choices"]]
    scores = iter(subject.score(pairs))
    rows: list[dict[str, Any]] = []
    for item in items:
        found = [next(scores) for _ in item.fields["choices"]]
        plain = max(range(len(found)), key=lambda n: found[n].nats)
        lengths = [len(choice.encode()) for choice in item.fields["choices"]]
        by_length = max(range(len(found)), key=lambda n: found[n].nats / lengths[n])
        right = item.fields["answer"]
        rows.append({"id": item.id, "acc": float(plain == right), "acc_norm": float(by_length == right)})
    return Result({name: estimate([row[name] for row in rows]) for name in ("acc", "acc_norm")}, rows)


def chance(items: Sequence[Item]) -> float:
    """What blind choice reaches."""
    return sum(1 / len(item.fields["choices"]) for item in items) / len(items)


def most_frequent(items: Sequence[Item]) -> float:
    """What the most frequent place reaches."""
    return Counter(item.fields["answer"] for item in items).most_common(1)[0][1] / len(items)
