"""The code suite of a reference system, by its own rules, to show what they are worth: random weights pass most of it.

Its generation score is 83 % for a model with random weights: two of three function tests hold for any answer, since
the prompt itself has the keyword, and any answer longer than five characters is a docstring. `code_suite_fair` asks
the same and cannot be passed so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from inkling.eval.statistics import Estimate, estimate
from inkling.eval.subject import Subject, Writing
from inkling.eval.tasks import Item, Options, Result

WHAT = "a reference system's code suite by its own rules (random weights reach 35 %: see code_suite_fair)"
DATA = ""
RUNS_CODE = False
MAX_TOKENS = 30
STOP = ('"""',)

BRACKETS = {"(": ")", "[": "]", "{": "}", "def func(": ")", "my_list[": "]"}
KEYWORDS = {
    "def ": ("func", "main", "test", "get", "set", "is"),
    "import ": ("torch", "os", "sys", "numpy", "math"),
    "class ": ("M", "G", "T", "C", "A"),
    "if ": ("x", "i", "not", "True", "False"),
    "for ": ("i", "x", "item", "key", "value"),
}
INDENTATION = ("def func():\n    ", "if True:\n    ", "for i in range(10):\n    ")
FUNCTIONS = {
    "def add(a, b):\n    return ": ("a", "+", "b"),
    "def factorial(n):\n    if n == 0:\n        return ": ("1", "0"),
    "def is_even(x):\n    return x % ": ("2", "==", "0"),
}
DOCSTRINGS = (
    'def quick_sort(arr):\n    """',
    'def add(a, b):\n    """',
    'class GPTModel:\n    """',
)
SNIPPETS = (
    "def add(a, b):\n    return a + b\n",
    "for i in range(10):\n    print(i)\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
    "def factorial(n):\n    if n == 0:\n        return 1\n    return n * factorial(n - 1)\n",
)
_WRITTEN: dict[str, tuple[int, tuple[str, ...]]] = {
    "bracket": (1, ()),
    "keyword": (1, ()),
    "indentation": (1, ()),
    "function": (20, ("\n",)),
    "docstring": (30, STOP),
}
"""Longest answer in tokens, and what ends it."""
_LETTER_FIVE_TIMES = re.compile(r"([A-Za-z])\1{4}")


def read(options: Options) -> list[Item]:
    """All prompts, by test."""
    groups: dict[str, Iterable[str]] = {
        "bracket": BRACKETS,
        "keyword": KEYWORDS,
        "indentation": INDENTATION,
        "function": FUNCTIONS,
        "docstring": DOCSTRINGS,
        "snippet": SNIPPETS,
    }
    return [
        Item(f"{test}/{n}", prompt, {"test": test})
        for test, all_of in groups.items()
        for n, prompt in enumerate(all_of)
    ]


def grade(items: Sequence[Item], subject: Subject, options: Options) -> Result:
    """By the suite's own rules: shares of tests passed, and their means."""
    rows: list[dict[str, Any]] = []
    for test, longest, stop in (
        ("bracket", 1, ()),
        ("keyword", 1, ()),
        ("indentation", 1, ()),
        ("function", 20, ("\n",)),
        ("docstring", 30, STOP),
    ):
        asked = [item for item in items if item.fields["test"] == test]
        answers = subject.write([item.prompt for item in asked], Writing(longest, stop))
        rows += [
            {"id": item.id, test: float(passes(test, item.prompt, given[0])), "answer": given[0]}
            for item, given in zip(asked, answers, strict=True)
        ]
    snippets = [item for item in items if item.fields["test"] == "snippet"]
    rows += [
        {"id": item.id, "perplexity": value}
        for item, value in zip(snippets, perplexities(subject, snippets), strict=True)
    ]

    def mean(name: str) -> float:
        values = [float(row[name]) for row in rows if name in row]
        return sum(values) / len(values)

    perplexity = mean("perplexity")
    fluency = 1.0 if perplexity < 50 else 0.5 if perplexity < 100 else 0.0
    syntax = (mean("bracket") + mean("keyword") + mean("indentation")) / 3
    generation = (mean("function") + mean("docstring")) / 2
    names = ("bracket", "keyword", "indentation", "function", "docstring")
    metrics = {
        "overall": _point((syntax + generation + fluency) / 3),
        "syntax": _point(syntax),
        "generation": _point(generation),
    }
    metrics |= {name: estimate([row[name] for row in rows if name in row]) for name in names}
    metrics["snippet perplexity"] = _point(perplexity)
    return Result(metrics, rows, "the suite's own rules; most of it is passed by random weights")


def repeated(items: Sequence[Item]) -> list[str]:
    """Words that pass much of it."""
    return ["item", " the"]


def passes(test: str, prompt: str, answer: str) -> bool:
    """One test, as the suite decides it."""
    stripped = answer.strip()
    if test == "bracket":
        return BRACKETS[prompt] in answer
    if test == "keyword":
        return any(stripped.startswith(word) or word in stripped for word in KEYWORDS[prompt])
    if test == "indentation":
        return bool(stripped) and stripped not in ("}", ")", "]")
    if test == "function":
        return any(word in prompt + answer for word in FUNCTIONS[prompt])
    return len(stripped) > 5 and not _LETTER_FIVE_TIMES.search(stripped)


def perplexities(subject: Subject, items: Sequence[Item]) -> list[float]:
    """exp(loss) of each text, by the subject's own tokens, as the suite has it."""
    scores = subject.score([("", item.prompt) for item in items])
    return [math.exp(min(-score.nats / max(1, score.num_tokens), 700)) for score in scores]


def _point(value: float) -> Estimate:
    """A figure without an interval."""
    return Estimate(value, math.nan, math.nan, 1)
