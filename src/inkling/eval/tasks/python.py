"""Python that goes on from the beginnings of files: does it parse, compile, name what there is, and run?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from inkling.eval.statistics import estimate
from inkling.eval.tasks import Item, Options, Result
from inkling.eval.tasks._code import compiles, parses, undefined_names

WHAT = "go on with a Python file; does it parse, compile and run?"
DATA = ""
RUNS_CODE = True
MAX_TOKENS = 120
STOP = ("\n\n\n",)
_BEGINNINGS = (
    "def add(a, b):\n",
    "import os\n\n\ndef list_files(folder):\n",
    "class Stack:\n    def __init__(self):\n",
    "for number in range(10):\n",
    "def factorial(n):\n    if n < 2:\n",
    "import re\n\nPATTERN = re.compile(",
    "names = [",
    "def read_lines(path):\n    with open(path) as file:\n",
    "try:\n    value = int(",
    "def is_even(number):\n    return ",
    "import json\n\n\ndef save(data, path):\n",
    "class Point:\n    x = 0\n    y = 0\n\n    def move(self, dx, dy):\n",
    "while True:\n    ",
    "def largest(values):\n    best = values[0]\n    for value in values:\n",
    "from collections import Counter\n\n\ndef count_words(text):\n",
    "assert ",
)


def read(options: Options) -> list[Item]:
    """The beginnings."""
    order = list(_BEGINNINGS)
    random.Random(options.seed).shuffle(order)
    return [Item(f"python/{number}", text) for number, text in enumerate(order[: options.limit])]


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """As they are."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Look at each answer up to its last whole line, since the last one may have been cut off; then run it."""
    assert options.sandbox is not None
    whole = [
        [item.prompt + _whole_lines(answer) for answer in given] for item, given in zip(items, answers, strict=True)
    ]
    endings = iter(options.sandbox.run_all(text for given in whole for text in given))
    rows: list[dict[str, Any]] = []
    for item, texts in zip(items, whole, strict=True):
        found = [next(endings) for _ in texts]
        count = len(texts)
        rows.append(
            {
                "id": item.id,
                "parses": sum(map(parses, texts)) / count,
                "compiles": sum(map(compiles, texts)) / count,
                "no unknown names": sum(compiles(text) and not undefined_names(text) for text in texts) / count,
                "runs": sum(one.ending == "finished" for one in found) / count,
                "answer": texts[0][:1000],
            }
        )
    names = ("parses", "compiles", "no unknown names", "runs")
    metrics = {name: estimate([row[name] for row in rows]) for name in names}
    return Result(metrics, rows, f"answers ran under {options.sandbox.protection}")


def _whole_lines(answer: str) -> str:
    return answer[: answer.rfind("\n") + 1] or answer


def constants(items: Sequence[Item]) -> list[str]:
    """What fits under most beginnings."""
    return ["    pass\n", "        pass\n", "1\n"]
