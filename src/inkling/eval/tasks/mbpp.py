"""MBPP: basic Python problems in a sentence each (Austin et al. 2021, arXiv:2108.07732); the 500 of its test part."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence

from inkling.errors import DataError
from inkling.eval.tasks import Item, Options, Result, read_lines
from inkling.eval.tasks._code import judge_code, parses
from inkling.sandbox import Trial

WHAT = "write a function from a sentence and its tests; the tests decide"
DATA = "mbpp.jsonl"
RUNS_CODE = True
MAX_TOKENS = 300
STOP = ("\nassert ", "\nclass ", '\n"""', "\nprint", "\nif ", "\n<", "\n```")
_FIRST, _LAST = 11, 510


def read(options: Options) -> list[Item]:
    """The problems."""
    needed = {"task_id": int, "text": str, "code": str, "test_list": list}
    unlimited = Options(data=options.data)
    rows = [one for one in read_lines(unlimited, DATA, needed) if _FIRST <= one[1]["task_id"] <= _LAST]
    if not rows:
        raise DataError(f"{options.data} holds no task of {_FIRST} to {_LAST}, which are the test part")
    found = []
    for place, row in rows[: options.limit]:
        if not row["test_list"] or not all(isinstance(test, str) for test in row["test_list"]):
            raise DataError(f"{place}: test_list must hold tests, all of them texts")
        tests = "\n".join(row["test_list"])
        if not all(map(parses, (row["code"], tests, str(row.get("test_setup_code", ""))))):
            raise DataError(f"{place}: code or tests are no Python")
        found.append(Item(f"MBPP/{row['task_id']}", f'"""\n{row["text"]}\n{tests}\n"""\n', row))
    return found


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """The sentence and its tests as a docstring, as the bigcode harness asks it."""
    return [item.prompt for item in items]


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Run the tests."""
    tested = [[_tested(item, answer) for answer in given] for item, given in zip(items, answers, strict=True)]
    return judge_code(items, answers, options, tested)


def _tested(item: Item, answer: str) -> Trial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python will not know some day
        return _parsed_trial(item, answer)


def _parsed_trial(item: Item, answer: str) -> Trial:
    reference = ast.parse(item.fields["code"])
    defined = {node.name for node in ast.walk(reference) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    read = {
        node.id for test in item.fields["test_list"] for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)
    }
    # Tests use modules that only the solution imports.
    imports = [ast.unparse(node) for node in reference.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    setup = "\n".join([*imports, item.fields.get("test_setup_code", "")])
    classes = {node.name for node in ast.walk(reference) if isinstance(node, ast.ClassDef)}
    given = ast.parse("\n".join([setup, *item.fields["test_list"]]))
    with_objects = any(isinstance(node, ast.Name) and node.id in classes for node in ast.walk(given))
    names = sorted(defined & read)
    return Trial(answer, names, item.fields["test_list"], setup=setup, together=with_objects)


def constants(items: Sequence[Item]) -> list[str]:
    """None that could pass: the name of the function differs."""
    return ["def f(*args):\n    return True\n"]


def references(items: Sequence[Item]) -> list[str]:
    """The problems' own solutions."""
    return [item.fields["code"] for item in items]
