"""The share of its tests that code passes, run in the sandbox: partial credit, where no answer passes all yet."""

from __future__ import annotations

from collections.abc import Sequence

from inkling.rewards.unit_tests import judged

WHAT = "the share of its tests that code passes; fields as of unit_tests"


def reward(
    prompts: Sequence[str],
    completions: Sequence[str],
    tests: Sequence[list[str]],
    names: Sequence[list[str]],
    program: Sequence[str] | None = None,
    setup: Sequence[str] | None = None,
) -> list[float]:
    """From 0 to 1. Arguments as of `unit_tests`."""
    return [share for _, share in judged(completions, tests, names, program, setup)]
