"""Intervals and differences against closed formulas, scipy-free."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from inkling.eval.statistics import bootstrap, estimate, paired_difference, pass_at_k, share


@pytest.mark.parametrize(
    ("samples", "right", "k", "expected"),
    [
        (10, 3, 1, 0.3),
        (10, 3, 5, 0.9166666667),
        (200, 15, 1, 0.075),
        (200, 15, 10, 0.5499888542),
        (200, 15, 100, 0.9999826829),
        (20, 1, 10, 0.5),
        (5, 0, 3, 0.0),
        (5, 4, 2, 1.0),
    ],
)
def test_pass_at_k_of_the_paper(samples: int, right: int, k: int, expected: float) -> None:
    assert pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("samples", "right", "k"), [(6, 2, 3), (7, 1, 4), (5, 3, 2)])
def test_pass_at_k_is_what_all_choices_of_samples_give(samples: int, right: int, k: int) -> None:
    hits = [any(one < right for one in chosen) for chosen in combinations(range(samples), k)]
    assert pass_at_k(samples, right, k) == pytest.approx(sum(hits) / len(hits))


def test_more_than_there_are_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="pass@10 needs at least 10"):
        pass_at_k(5, 1, 10)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Agresti and Coull 1998, and R's prop.test(correct=FALSE).
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_intervals(hits: int, count: int, low: float, high: float) -> None:
    found = share(hits, count)
    assert found.value == hits / count
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


def test_the_bootstrap_of_a_mean_is_about_its_normal_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(values, np.ones(400))
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.05)
    assert high == pytest.approx(values.mean() + error, abs=0.05)
    assert bootstrap(values, np.ones(400)) == (low, high)  # the same every time


def test_an_estimate_of_shares_and_of_other_numbers() -> None:
    assert estimate([0, 1, 1, 1]) == share(3, 4)
    mixed = estimate([0.0, 0.5, 1.0])
    assert mixed.value == 0.5
    assert mixed.low < 0.5 < mixed.high
    assert math.isnan(estimate([]).value)


def test_differences_of_pairs() -> None:
    draw = np.random.default_rng(2)
    hard = draw.normal(0, 5, 200)  # what items have in common cancels out
    first, better = hard + draw.normal(0, 0.1, 200), hard + 0.3 + draw.normal(0, 0.1, 200)
    found = paired_difference(first.tolist(), better.tolist())
    assert found.value == pytest.approx(0.3, abs=0.05)
    assert found.is_significant
    assert found.p_value < 0.01
    same = paired_difference(first.tolist(), (hard + draw.normal(0, 0.1, 200)).tolist())
    assert not same.is_significant
    assert same.p_value > 0.05
    with pytest.raises(ValueError, match="same length"):
        paired_difference([1], [1, 2])


def test_the_permutation_test_is_exact_for_few_pairs() -> None:
    found = paired_difference([0, 0, 0, 0, 0], [1, 1, 1, 1, 1])
    assert found.p_value == pytest.approx(2 / 32, abs=0.02)  # two of all 32 choices of signs are as extreme


def test_one_value_has_no_interval() -> None:
    found = estimate([1 / 3])
    assert (found.value, found.as_dict()["low"], found.interval()) == (1 / 3, None, "")
    assert estimate([1 / 3, 2 / 3]).interval().startswith("  (0.")
