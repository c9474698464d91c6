"""The number of threads follows the speed of the steps; the machine here is a formula."""

from __future__ import annotations

import pytest

from inkling.train import drift
from inkling.train.drift import ThreadWatch


def run(watch: ThreadWatch, steps: int, seconds_of: dict[int, float]) -> None:
    for _ in range(steps):
        watch.after_step(seconds_of[watch.threads])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_AGAIN_AFTER_S", -1.0)


def test_threads_go_down_when_steps_become_slow_and_up_when_they_are_fast_again() -> None:
    taken: list[int] = []
    changes: list[tuple[int, str]] = []
    watch = ThreadWatch(4, taken.append, lambda number, why: changes.append((number, why)))
    quiet, busy = {4: 1.0, 2: 1.5, 1: 2.5}, {4: 9.0, 2: 4.0, 1: 2.6}
    run(watch, 40, quiet)
    assert taken == []
    run(watch, 40, busy)
    assert watch.threads == 1
    run(watch, 60, quiet)
    assert watch.threads == 4
    assert [number for number, _ in changes] == [1, 4]
    assert "4: 9000 ms, 2: 4000 ms, 1: 2600 ms" in changes[0][1]


def test_nothing_changes_for_one_thread_small_changes_or_short_steps() -> None:
    for chosen, before, after in ((1, 1.0, 9.0), (2, 1.0, 1.9), (2, 1e-3, 5e-3)):
        watch = ThreadWatch(chosen, lambda number: pytest.fail("changed"), lambda number, why: None)
        run(watch, 30, {chosen: before})
        run(watch, 30, {chosen: after})
