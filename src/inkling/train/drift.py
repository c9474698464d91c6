"""Watches the speed of a run and looks again at the number of threads when it has become much slower.

Two threads on a machine whose other core is busy wait for each other: they ran eight times slower than one. The number
that was best when the run began is not the best one then.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

_RECENT_STEPS = 10
_MIN_SECONDS = 10.0
_SLOWER = 2.0
_TRIAL_STEPS = 4
_AGAIN_AFTER_S = 60.0


class ThreadWatch:
    """Changes the number of CPU threads when steps take twice as long as they did, and back when that is better again.

    Each candidate is tried on a few real steps: nothing is computed for the trial alone.

    Args:
        chosen: Threads at the start.
        set_threads: Takes a number of threads into use.
        on_change: Told of every change: the new number, and why.
    """

    def __init__(self, chosen: int, set_threads: Callable[[int], None], on_change: Callable[[int, str], None]) -> None:
        self.chosen = chosen
        self.threads = chosen
        self._before = chosen
        self._set = set_threads
        self._on_change = on_change
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._normal: float | None = None
        self._trials: dict[int, list[float]] = {}
        self._looked_at_s = time.monotonic()

    def after_step(self, seconds: float) -> None:
        """Take note of how long a step took."""
        if self._trials:
            self._trials[self.threads].append(seconds)
            if len(self._trials[self.threads]) == _TRIAL_STEPS:
                self._next_trial()
            return
        self._recent.append(seconds)
        if len(self._recent) < _RECENT_STEPS:
            return
        typical = statistics.median(self._recent)
        self._normal = typical if self._normal is None else min(self._normal, typical)
        slow = typical > _SLOWER * self._normal and sum(self._recent) > _MIN_SECONDS
        waited = time.monotonic() - self._looked_at_s > _AGAIN_AFTER_S
        if self.chosen > 1 and waited and (slow or self.threads != self.chosen):
            self._before = self.threads
            self._trials = {self.chosen: [], max(1, self.chosen // 2): [], 1: []}
            self._take(self.chosen)

    def _next_trial(self) -> None:
        untried = [number for number, seconds in self._trials.items() if not seconds]
        if untried:
            self._take(untried[0])
            return
        times = {number: statistics.median(seconds[1:]) for number, seconds in self._trials.items()}
        best = min(times, key=times.__getitem__)
        self._take(best)
        self._trials = {}
        self._recent.clear()
        self._looked_at_s = time.monotonic()
        if best != self._before:
            each = ", ".join(f"{number}: {seconds * 1e3:.0f} ms" for number, seconds in times.items())
            self._on_change(best, f"steps changed their pace, so threads were timed again ({each}): now {best}")

    def _take(self, number: int) -> None:
        self.threads = number
        self._set(number)
