"""Work beside the loop: in order, never lost, and what fails is not passed over."""

from __future__ import annotations

import time

import pytest

from inkling.train.background import Ahead, Background


def test_one_thing_at_a_time_and_errors_come_back() -> None:
    done: list[int] = []
    background = Background()
    for number in range(3):

        def work(number: int = number) -> None:
            time.sleep(0.01 * (3 - number))
            done.append(number)

        background.do(work)
    background.wait()
    assert done == [0, 1, 2]
    background.do(lambda: done.append(1 // 0))
    with pytest.raises(ZeroDivisionError):
        background.do(lambda: done.append(4))
    background.wait()
    assert done == [0, 1, 2]


def test_the_next_value_is_there_and_any_other_step_is_computed() -> None:
    asked: list[int] = []

    def square(step: int) -> int:
        asked.append(step)
        return step * step

    ahead = Ahead(square)
    assert [ahead(step) for step in (0, 1, 2, 7, 8, 3)] == [0, 1, 4, 49, 64, 9]
    time.sleep(0.05)
    assert sorted(asked) == [0, 1, 2, 3, 3, 4, 7, 8, 9]
