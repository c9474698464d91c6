"""What tasks share whose answers are Python."""

from __future__ import annotations

import ast
import builtins
import symtable
import warnings
from collections.abc import Sequence
from typing import Any

from inkling.eval.statistics import estimate
from inkling.eval.tasks import Item, Options, Result, rates_at_k
from inkling.sandbox import Trial

STOP = ("\nclass ", "\ndef ", "\n#", "\n@", "\nif ", "\nprint", "\nassert ", "\n```", "\n<")


def parses(source: str) -> bool:
    """Whether it is Python."""
    return tree_of(source) is not None


def compiles(source: str) -> bool:
    """Whether Python takes it, `return` outside of functions and the like included."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, "<answer>", "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def undefined_names(source: str) -> list[str]:
    """Names that are read but never bound, and are no builtins. Source that does not compile has none to tell."""
    tree = tree_of(source)
    if tree is None or not compiles(source):
        return []
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = symtable.symtable(source, "<answer>", "exec")
    known = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    known |= {child.get_name() for child in top.get_children()} | set(dir(builtins)) | {"__name__", "__file__"}
    found: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        known |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_declared_global()}
        found |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return sorted(found - known)


def tree_of(source: str) -> ast.Module | None:
    """What it says; None where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def judge_code(
    items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options, tested: Sequence[Sequence[Trial]]
) -> Result:
    """pass@k, and for models too small for it: what parses, compiles, names nothing unknown, and the share of tests.

    Args:
        tested: Of each answer.
    """
    assert options.sandbox is not None
    verdicts = iter(options.sandbox.test_all(one for group in tested for one in group))
    of_items = [[next(verdicts) for _ in group] for group in tested]
    metrics, each = rates_at_k([[verdict.is_right for verdict in group] for group in of_items])
    rows: list[dict[str, Any]] = []
    for item, given, group, found, rates in zip(items, answers, tested, of_items, each, strict=True):
        codes = [one.code for one in group]
        count = len(codes)
        rows.append(
            {
                "id": item.id,
                **rates,
                "tests passed": sum(verdict.share for verdict in found) / count,
                "parses": sum(map(parses, codes)) / count,
                "compiles": sum(map(compiles, codes)) / count,
                "no unknown names": sum(compiles(code) and not undefined_names(code) for code in codes) / count,
                "answer": given[0][:1000],
                "errors": list(found[0].errors),
                "ending": found[0].ending,
            }
        )
    for name in ("tests passed", "parses", "compiles", "no unknown names"):
        metrics[name] = estimate([row[name] for row in rows])
    note = f"answers ran under {options.sandbox.protection}"
    if num_weak := sum(found[0].is_weak for found in of_items):
        note += f"; {num_weak} of {len(items)} checks are weak: their tests need objects of the answer's own classes"
    return Result(metrics, rows, note)
