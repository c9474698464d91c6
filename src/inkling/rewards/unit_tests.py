"""Code that passes its tests, run in the sandbox."""

from __future__ import annotations

import atexit
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from inkling.sandbox import Sandbox, Trial

WHAT = "1 for code that passes all its tests, else 0; fields: tests, names, and program with {answer} in it"
_FENCE = re.compile(r"```(?:python|py)?\n(.*?)(?:```|\Z)", re.DOTALL)


def reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    tests: Sequence[list[str]],
    names: Sequence[list[str]],
    program: Sequence[str] | None = None,
    setup: Sequence[str] | None = None,
) -> list[float]:
    """1 for each answer that passes all tests, else 0.

    Args:
        tests: Python that asserts.
        names: Functions that the tests call.
        program: The program, with {answer} where the answer goes. Default: the answer is the program; of one with a
            fenced block, the first block.
        setup: Runs before the tests.
    """
    return [1.0 if right else 0.0 for right, _ in judged(completions, tests, names, program, setup)]


def judged(
    completions: Sequence[str],
    tests: Sequence[list[str]],
    names: Sequence[list[str]],
    program: Sequence[str] | None,
    setup: Sequence[str] | None,
) -> list[tuple[bool, float]]:
    """Of each answer, whether it is right, and the share of the tests that it passes."""
    trials = [
        Trial(
            code=program_of(completion, program[number] if program else None),
            names=names[number],
            tests=tests[number],
            setup=(setup[number] if setup else None) or "",
        )
        for number, completion in enumerate(completions)
    ]
    keys = [(one.code, tuple(one.names), tuple(one.tests), one.setup) for one in trials]
    different = dict(zip(keys, trials, strict=True))  # the same answer to the same prompt is tried once
    verdicts: dict[Any, Any] = dict(zip(different, _sandbox().test_all(different.values()), strict=True))
    return [(verdicts[key].is_right, verdicts[key].share) for key in keys]


def program_of(completion: str, program: str | None) -> str:
    """The program that an answer makes."""
    if program is not None:
        return program.replace("{answer}", completion.strip())
    fenced = _FENCE.search(completion)
    return fenced.group(1) if fenced else completion


@cache
def _sandbox() -> Sandbox:
    box = Sandbox()
    atexit.register(box.close)
    return box
