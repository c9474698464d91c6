"""How sure a figure is, and whether two differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_CONFIDENCE_Z = 1.959963984540054
_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        low, high: NaN where no interval can be told, as of one value.
        count: What it is the mean of.
    """

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form; what is no number is None."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    def interval(self, digits: int = 3) -> str:
        """For people, in brackets after the figure; empty where there is none."""
        return "" if math.isnan(self.low) else f"  ({self.low:.{digits}f} to {self.high:.{digits}f})"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values: with Wilson's interval where all are 0 or 1, and by bootstrap otherwise."""
    if not len(values):
        return Estimate(math.nan, math.nan, math.nan, 0)
    if all(value in (0, 1) for value in values):
        return share(int(sum(values)), len(values))
    array = np.asarray(values, np.float64)
    low, high = bootstrap(array, np.ones_like(array))
    return Estimate(float(array.mean()), low, high, len(array))


def share(hits: int, count: int) -> Estimate:
    """A share with Wilson's score interval (1927), which holds for few items and for shares near 0 and 1."""
    p, z2 = hits / count, _CONFIDENCE_Z**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = _CONFIDENCE_Z * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), count)


def bootstrap(sums: np.ndarray, weights: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(weights), items drawn again with replacement (Efron 1979).

    Args:
        sums: (N), such as the bits of each document.
        weights: (N), such as their bytes.

    Returns NaN twice for fewer than two items, which cannot tell how they vary.
    """
    if len(sums) < 2:
        return math.nan, math.nan
    draw = np.random.default_rng(seed)
    ratios = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        chosen = draw.integers(0, len(sums), len(sums))
        ratios[number] = sums[chosen].sum() / max(weights[chosen].sum(), 1e-12)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Of two on the same items, the second less the first.

    Attributes:
        p_value: Chance of one as large where only the signs of the items' differences were by chance.
    """

    value: float
    low: float
    high: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether it is more than chance: the interval leaves 0 out, and the test says so (few pairs never can)."""
        return (self.low > 0 or self.high < 0) and self.p_value < 0.05


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Difference:
    """The mean difference of paired values, with its bootstrap interval and a sign-flip permutation test.

    Raises ValueError for lists of different lengths.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError("paired values come in two lists of the same length")
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    low, high = bootstrap(differences, np.ones_like(differences), seed=seed)
    draw = np.random.default_rng(seed)
    observed = abs(differences.mean())
    signs = draw.choice(np.array([-1.0, 1.0]), (_RESAMPLES, len(differences)))
    extreme = int((np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12).sum())
    return Difference(float(differences.mean()), low, high, (extreme + 1) / (_RESAMPLES + 1))


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The chance that at least one of `k` samples is right, without bias (Chen et al. 2021, arXiv:2107.03374).

    Raises ValueError for more than there are samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples of each problem, there are {num_samples}")
    if num_samples - num_right < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(num_samples - num_right + 1, num_samples + 1)))
