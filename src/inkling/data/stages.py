"""A run in stages: shorter rows and smaller batches at its beginning. What a step sees is a function of `(seed, step)`.

A stage takes whole windows, in the order in which any run takes them, and cuts each into rows of its own length. So
every token of an epoch is predicted once, as without stages; what changes is how far back a token sees, and how many
tokens are in a step.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from inkling.data.loader import Batch, PackedWindows


@dataclass(frozen=True)
class Stage:
    """Steps that are alike.

    Attributes:
        first_step: The stage goes on until the next one begins.
        context: Tokens of a row.
        windows: Windows, of the whole context, that a step takes.
    """

    first_step: int
    context: int
    windows: int


class StagedWindows:
    """The batches of a run in stages.

    Args:
        windows: In their order; their context is a multiple of that of each stage.
        stages: In the order of their first steps, the first one from step 0 on. Default: one, which is the batches of
            `windows` as they are.
    """

    def __init__(self, windows: PackedWindows, stages: Sequence[Stage] = ()) -> None:
        self.windows = windows
        self.stages = list(stages) or [Stage(0, windows.context, windows.batch_size)]
        self._begins = [stage.first_step for stage in self.stages]
        self._before = [0]  # windows that were taken before each stage
        for stage, after in zip(self.stages, self.stages[1:], strict=False):
            self._before.append(self._before[-1] + (after.first_step - stage.first_step) * stage.windows)

    def stage(self, step: int) -> Stage:
        """The stage of a step."""
        return self.stages[self._number(step)]

    def batch(self, step: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """The batch of a step, or the rows of it that are those of one rank of several: (B / world_size, T)."""
        stage = self.stage(step)
        parts = self.windows.context // stage.context
        rows = stage.windows * parts // world_size
        return self.windows.rows(self.windows_before(step) * parts + rank * rows, rows, stage.context)

    def tokens(self, step: int) -> int:
        """Tokens that a step predicts."""
        return self.stage(step).windows * self.windows.context

    def windows_before(self, step: int) -> int:
        """Windows that all steps before this one take."""
        number = self._number(step)
        return self._before[number] + (step - self._begins[number]) * self.stages[number].windows

    def epochs(self, steps: int) -> float:
        """How often the text is passed over in so many steps."""
        return self.windows_before(steps) / self.windows.windows_per_epoch

    def _number(self, step: int) -> int:
        return bisect_right(self._begins, step) - 1
