"""The engine's thread: requests go in through a queue, texts come out through callbacks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from inkling.infer.completing import Completing
from inkling.infer.engine import Engine
from inkling.serve.metrics import Metrics

_Order = Callable[[], None]


class Worker:
    """Runs an engine as long as the service lives.

    Args:
        max_queue: Completions that may wait; beyond them `has_room` says no.

    Attributes:
        failure: Why the engine stopped, if it did.
    """

    def __init__(self, engine: Engine, metrics: Metrics, *, max_queue: int) -> None:
        self.engine = engine
        self.metrics = metrics
        self.max_queue = max_queue
        self.failure: BaseException | None = None
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._news: list[_Order] = []
        self._num_open = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work, for callers of the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Leave what is unfinished, and end."""
        self._orders.put(None)
        self._thread.join(timeout=10)

    @property
    def num_open(self) -> int:
        """Completions that are waiting or being written."""
        return self._num_open

    def has_room(self, count: int) -> bool:
        """Whether so many more completions may come."""
        return self._num_open + count <= self.engine.limits.max_sequences + self.max_queue

    def submit(self, sequences: list[Completing]) -> None:
        """Let completions begin."""
        with self._lock:
            self._num_open += len(sequences)
        for sequence in sequences:
            told = sequence.on_change
            sequence.on_change = self._observed(told, time.monotonic())
        self._orders.put(lambda: self._add(sequences))

    def _add(self, sequences: list[Completing]) -> None:
        """A prompt that has several completions is computed once, unless it is to be told how likely it is."""
        for wants_logprobs, some in itertools.groupby(sequences, lambda one: one.wants_prompt_logprobs):
            for _, group in itertools.groupby(some, lambda one: (one.prompt_ids, one.adapter)):
                first, *siblings = group
                self.engine.add(first, [] if wants_logprobs else siblings)
                for one in siblings if wants_logprobs else ():
                    self.engine.add(one)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Do something with the model between two steps, in the engine's thread."""
        future: Future[Any] = Future()

        def order() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._orders.put(order)
        return future

    def tell(self, news: _Order) -> None:
        """Do something in the event loop after this step: one wake-up for all that a step says."""
        self._news.append(news)

    def _tell_all(self) -> None:
        if self._news:
            news, self._news = self._news, []
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
                self._loop.call_soon_threadsafe(lambda: [one() for one in news])

    def abort(self, sequences: list[Completing]) -> None:
        """Nobody waits for these any more."""
        self._orders.put(lambda: self._abort(sequences))

    def _abort(self, sequences: list[Completing]) -> None:
        for sequence in sequences:
            if sequence.finish_reason is None:
                self.engine.abort(sequence)
                self.metrics.aborts += 1
                self._closed()

    def _closed(self) -> None:
        with self._lock:
            self._num_open -= 1

    def _observed(self, told: Callable[[Completing, str], None], started_s: float) -> Callable[[Completing, str], None]:
        last_s, num_known = started_s, 0

        def on_change(sequence: Completing, piece: str) -> None:
            nonlocal last_s, num_known
            now_s, num_new = time.monotonic(), len(sequence.token_ids) - num_known
            if sequence.failure is not None:
                self._closed()
                told(sequence, piece)
                return
            if num_known == 0:
                self.metrics.first_token.observe(now_s - started_s)
                self.metrics.prompt_tokens += len(sequence.prompt_ids)
                self.metrics.cached_tokens += sequence.num_cached
            else:
                self.metrics.between_tokens.observe((now_s - last_s) / num_new, num_new)
            last_s, num_known = now_s, num_known + num_new
            self.metrics.completion_tokens += num_new
            if sequence.finish_reason is not None:
                self._closed()
            told(sequence, piece)

        return on_change

    def _work(self) -> None:
        try:
            while True:
                while self.engine.is_idle or not self._orders.empty():
                    order = self._orders.get()
                    if order is None:
                        return
                    order()
                self.engine.step()
                self._tell_all()
        except BaseException as error:
            self.failure = error
            raise
