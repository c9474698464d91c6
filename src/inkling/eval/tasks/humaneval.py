"""HumanEval: 164 functions to write from their docstrings (Chen et al. 2021, arXiv:2107.03374)."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from inkling.errors import DataError
from inkling.eval.tasks import Item, Options, Result, read_lines
from inkling.eval.tasks._code import STOP as STOP
from inkling.eval.tasks._code import judge_code, tree_of
from inkling.sandbox import Trial

WHAT = "write a function from its docstring; unit tests decide"
DATA = "HumanEval.jsonl.gz"
RUNS_CODE = True
MAX_TOKENS = 300


def read(options: Options) -> list[Item]:
    """The problems."""
    needed = {"task_id": str, "prompt": str, "entry_point": str, "test": str}
    found = []
    for place, row in read_lines(options, DATA, needed):
        if not _defines(f"{row['prompt']}    pass\n", row["entry_point"]) or not _defines(row["test"], "check"):
            raise DataError(f"{place}: prompt must begin the function {row['entry_point']!r}, and test define check")
        found.append(Item(row["task_id"], row["prompt"], row))
    return found


def _defines(source: str, name: str) -> bool:
    """Whether it is Python with a function of this name."""
    tree = tree_of(source)
    return tree is not None and any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Signatures and docstrings."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Run the tests."""
    return judge_code(
        items,
        answers,
        options,
        [[_tested(item, answer) for answer in given] for item, given in zip(items, answers, strict=True)],
    )


def _tested(item: Item, answer: str) -> Trial:
    """The tests call helpers that the prompt defines, so these stand beside the tests too, with an empty function."""
    name = item.fields["entry_point"]
    tests = [f"{item.fields['test']}\ncheck({name})"]
    return Trial(item.prompt + answer, [name], tests, setup=item.prompt + "    pass\n")


def constants(items: Sequence[Item]) -> list[str]:
    """Answers that some problems take."""
    return ["    return True\n", "    return 0\n", "    return []\n", "    pass\n"]


def references(items: Sequence[Item]) -> list[str]:
    """The problems' own solutions."""
    return [item.fields.get("canonical_solution", "") for item in items]
