"""Live progress on stderr: a bar for a person at a terminal, a plain line now and then for a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_INTERVAL_S = 10.0


class LiveProgress:
    """Shows the phase, how far it is, and a few words about it. Call it as often as you like.

        with LiveProgress() as progress:
            progress("training", step, num_steps, f"loss {loss:.3f}")

    Args:
        quiet: Show nothing, as `--json` wants on a log.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._bars = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._phase = ""
        self._started_s = 0.0
        self._printed_s = 0.0

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def __call__(self, phase: str, done: float, total: float | None = None, detail: str = "") -> None:
        """Say that `done` of `total` units of `phase` are finished. A total of None means that nobody knows."""
        if self._live:
            self._update_bar(phase, done, total, detail)
        elif not self._quiet:
            self._print_line(phase, done, total, detail)

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _update_bar(self, phase: str, done: float, total: float | None, detail: str) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, detail=detail)
        self._bars.update(self._tasks[phase], completed=done, total=total, detail=detail)

    def _print_line(self, phase: str, done: float, total: float | None, detail: str) -> None:
        now = time.monotonic()
        finished = total is not None and done >= total
        if phase != self._phase:
            self._phase, self._started_s, self._printed_s = phase, now, 0.0
        if now - self._printed_s < PLAIN_INTERVAL_S and not finished:
            return
        self._printed_s = now
        share = f" {done / total:4.0%}" if total else ""
        elapsed_s = now - self._started_s
        eta = f"  eta {elapsed_s * (total - done) / done:.0f} s" if total and 0 < done < total and elapsed_s > 1 else ""
        self.note(f"{phase}{share}  {elapsed_s:.0f} s{eta}  {detail}".rstrip())
