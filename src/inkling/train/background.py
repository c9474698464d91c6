"""Work beside the training loop: writing checkpoints, and reading the next batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class Background:
    """Does one thing at a time in a thread of its own. What went wrong there is raised by the next call."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin `work` when what was begun before is done."""
        self.wait()
        self._running = self._pool.submit(work)

    def wait(self) -> None:
        """Until everything is done."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


class Ahead(Generic[ResultT]):
    """A function of the step whose next value is computed while the loop works on this one."""

    def __init__(self, function: Callable[[int], ResultT]) -> None:
        self._function = function
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[ResultT]] | None = None

    def __call__(self, step: int) -> ResultT:
        """The function's value for `step`; that of `step + 1` is begun."""
        waiting, self._next = self._next, None
        value = waiting[1].result() if waiting is not None and waiting[0] == step else self._function(step)
        self._next = step + 1, self._pool.submit(self._function, step + 1)
        return value
