"""The same abilities as `code_suite`, asked so that no constant answer passes.

Brackets close in the right order, the word is one that only the context decides, the indentation is what the block
needs, a docstring is told from those of other functions, all by likelihood; functions are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inkling.eval.statistics import estimate
from inkling.eval.subject import Subject, Writing
from inkling.eval.tasks import Item, Options, Result
from inkling.sandbox import Trial

WHAT = "brackets, keywords, indentation, functions and docstrings, asked so that no constant answer passes"
DATA = ""
RUNS_CODE = True
MAX_TOKENS = 20
STOP = ("\n",)

# A context, the right ending, and wrong ones; each wrong ending is the right one of another question of the group.
_CHOICES: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {
    "bracket": [
        ("x = (a + b", ")\n", ("]\n", "}\n")),
        ("x = [a, b", "]\n", (")\n", "}\n")),
        ("x = {1: a", "}\n", (")\n", "]\n")),
        ("f([1, 2", "])\n", (")]\n", "})\n")),
        ("x = {(1, 2", ")}\n", ("})\n", "])\n")),
        ("x = [f(a)", "]\n", (")\n", "}\n")),
        ("print((1", "))\n", (")]\n", ")}\n")),
        ("y = d[k[0]", "]\n", (")\n", "}\n")),
    ],
    "keyword": [
        ("for i ", "in range(10):\n", ("is range(10):\n", "as range(10):\n")),
        ("import os ", "as o\n", ("in o\n", "is o\n")),
        ("if x ", "is None:\n", ("as None:\n", "import None:\n")),
        ("from os ", "import path\n", ("in path\n", "is path\n")),
        ("if a:\n    b = 1\n", "else:\n    b = 2\n", ("except:\n    b = 2\n", "finally:\n    b = 2\n")),
        ("try:\n    b = 1\n", "except ValueError:\n    b = 2\n", ("else ValueError:\n    b = 2\n",)),
        ("with open(p) ", "as f:\n", ("in f:\n", "is f:\n")),
        ("def f(x):\n    ", "return x\n", ("else x\n", "import x\n")),
    ],
    "indentation": [
        ("def f(x):\n", "    return x\n", ("return x\n", "        return x\n")),
        ("x = 1\n", "y = 2\n", ("    y = 2\n", "        y = 2\n")),
        ("for i in a:\n    if i:\n", "        print(i)\n", ("    print(i)\n", "print(i)\n")),
        ("class A:\n    def f(self):\n", "        return 1\n", ("    return 1\n", "return 1\n")),
        ("while True:\n", "    break\n", ("break\n", "        break\n")),
        ("def f(x):\n    return x\n\n\n", "def g(x):\n", ("    def g(x):\n", "        def g(x):\n")),
        ("if a:\n    b = 1\n", "else:\n", ("    else:\n", "        else:\n")),
        ("try:\n    f()\n", "except OSError:\n", ("    except OSError:\n", "        except OSError:\n")),
    ],
    "docstring": [
        ('def add(a, b):\n    """', "Return the sum of two numbers.", ("Sort a list in place.", "Read a file.")),
        ('def sort(items):\n    """', "Sort a list in place.", ("Return the sum of two numbers.", "Read a file.")),
        ('def read_file(path):\n    """', "Read a file.", ("Sort a list in place.", "Close a connection.")),
        ('def close(connection):\n    """', "Close a connection.", ("Read a file.", "Return the sum of two numbers.")),
    ],
}
_FUNCTIONS = [
    ("def add(a, b):\n    return ", "add", ["add(2, 3) == 5", "add(-1, 1) == 0", "add(7, 0) == 7"]),
    ("def is_even(x):\n    return x % ", "is_even", ["is_even(4)", "not is_even(3)", "is_even(0)"]),
    ("def square(x):\n    return ", "square", ["square(3) == 9", "square(-2) == 4"]),
    ("def first(items):\n    return ", "first", ["first([3, 1]) == 3", "first('ab') == 'a'"]),
    ("def largest(items):\n    return ", "largest", ["largest([1, 5, 2]) == 5", "largest([-3, -7]) == -3"]),
    ("def double(x):\n    return ", "double", ["double(3) == 6", "double(0) == 0", "double(-4) == -8"]),
]


def read(options: Options) -> list[Item]:
    """All questions."""
    found = [
        Item(f"{test}/{number}", context, {"test": test, "right": right, "wrong": wrong})
        for test, questions in _CHOICES.items()
        for number, (context, right, wrong) in enumerate(questions)
    ]
    for number, (prompt, name, tests) in enumerate(_FUNCTIONS):
        found.append(
            Item(
                f"function/{number}",
                prompt,
                {"test": "function", "name": name, "tests": [f"assert {test}" for test in tests]},
            )
        )
    return found


def grade(items: Sequence[Item], subject: Subject, options: Options) -> Result:
    """Choices by likelihood per byte, functions by running them; the mean over all is the task's own figure."""
    assert options.sandbox is not None
    choices = [item for item in items if item.fields["test"] != "function"]
    endings = [(item.fields["right"], *item.fields["wrong"]) for item in choices]
    scores = iter(
        subject.score([(item.prompt, end) for item, ends in zip(choices, endings, strict=True) for end in ends])
    )
    rows: list[dict[str, Any]] = []
    for item, ends in zip(choices, endings, strict=True):
        found = [next(scores) for _ in ends]
        rates = [score.nats / score.num_bytes for score in found]
        is_right = rates[0] > max(rates[1:])  # a tie is no choice
        rows.append({"id": item.id, item.fields["test"]: float(is_right)})
    functions = [item for item in items if item.fields["test"] == "function"]
    answers = subject.write([item.prompt for item in functions], Writing(MAX_TOKENS, STOP))
    tested = [
        Trial(item.prompt + given[0], [item.fields["name"]], item.fields["tests"])
        for item, given in zip(functions, answers, strict=True)
    ]
    for item, given, verdict in zip(functions, answers, options.sandbox.test_all(tested), strict=True):
        rows.append({"id": item.id, "function": float(verdict.is_right), "answer": given[0]})
    names = ("bracket", "keyword", "indentation", "function", "docstring")
    of_kind = {name: estimate([row[name] for row in rows if name in row]) for name in names}
    for row in rows:
        row["mean"] = next(row[name] for name in names if name in row)
    overall = estimate([row["mean"] for row in rows])
    return Result({"mean": overall, **of_kind}, rows, f"answers ran under {options.sandbox.protection}")


def constants(items: Sequence[Item]) -> list[str]:
    """None that could pass."""
    return ["x", "    return x"]


def chance(items: Sequence[Item]) -> float:
    """What blind choice reaches: functions never pass by chance."""
    blind = [1 / (1 + len(item.fields["wrong"])) if "wrong" in item.fields else 0.0 for item in items]
    return sum(blind) / len(blind)
