"""What a run does when little is said: each rule where it changes its answer."""

from __future__ import annotations

from typing import Any

import pytest

from inkling.train.defaults import MIN_STEPS, Horizon, choose_horizon


def horizon(**more: Any) -> Horizon:
    values: dict[str, Any] = {
        "num_parameters": 800_000,
        "num_tokens": 1_000_000,
        "context": 256,
        "batch_size": None,
        "steps": None,
        "time_s": None,
        "tokens_per_s": None,
        "muon_share": lambda tokens: 2000 / tokens,
    }
    return choose_horizon(**{**values, **more})


def test_few_steps_are_the_beginning_of_a_run_and_not_a_few_huge_ones() -> None:
    usual = horizon()
    few, many = horizon(steps=30), horizon(steps=8 * MIN_STEPS)
    assert few.batch_size == usual.batch_size
    assert few.tokens == 30 * few.batch_size * 256
    assert many.batch_size < usual.batch_size


def test_batches_that_grow_make_more_steps_of_the_same_tokens() -> None:
    whole, growing = horizon(), horizon(mean_share=0.5)
    assert growing.batch_size == whole.batch_size
    assert growing.steps == pytest.approx(2 * (whole.steps or 0), abs=1)
    assert growing.passes == pytest.approx(whole.passes, rel=1e-3)
    assert horizon(steps=100, batch_size=4, mean_share=0.5).tokens == 100 * 4 * 256 / 2
