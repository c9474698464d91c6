"""The guard of a training run: decides which steps are too bad to take.

A non-finite loss or gradient, or a loss far above the recent ones, costs a run everything it has learnt; leaving the
step out costs one batch. The six-sigma rule over 128 steps is that of OLMo-core's skip-step optimizers.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from inkling.config import Field, Section

WINDOW = 128
_MIN_HISTORY = 32
_MIN_RELATIVE_SIGMA = 0.01


class GuardSettings(Section):
    """When a step is skipped, and when the run goes back."""

    sigmas: float = Field(6.0, gt=0)
    """Skip a step whose loss is this many standard deviations above the mean of the last 128."""
    gradient_factor: float = Field(50.0, gt=1)
    """Skip a step whose gradient norm is this many times the mean of the last 128."""
    skips_before_rollback: int = Field(5, ge=1)
    """Skipped steps in a row after which the run goes back to its last good checkpoint, at half the learning rate."""
    max_rollbacks: int = Field(3, ge=0)
    """Give up after going back this many times."""


class Guard:
    """Watches loss and gradient norm, step by step."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self.num_skipped = 0
        self.num_skipped_in_row = 0
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def reason_to_skip(self, loss: float, gradient_norm: float) -> str | None:
        """Why this step must not be taken, or None. Remembers a good step, counts a bad one."""
        reason = self._judge(loss, gradient_norm)
        if reason is None:
            self._losses.append(loss)
            self._norms.append(gradient_norm)
            self.num_skipped_in_row = 0
        else:
            self.num_skipped += 1
            self.num_skipped_in_row += 1
        return reason

    @property
    def must_roll_back(self) -> bool:
        """Whether so many steps in a row were bad that the weights themselves are suspect."""
        return self.num_skipped_in_row >= self.settings.skips_before_rollback

    def _judge(self, loss: float, gradient_norm: float) -> str | None:
        if not math.isfinite(loss):
            return "the loss is not finite"
        if not math.isfinite(gradient_norm):
            return "the gradient is not finite"
        if len(self._losses) < _MIN_HISTORY:
            return None
        mean = sum(self._losses) / len(self._losses)
        variance = sum((value - mean) ** 2 for value in self._losses) / len(self._losses)
        sigma = max(math.sqrt(variance), _MIN_RELATIVE_SIGMA * mean)
        if loss > mean + self.settings.sigmas * sigma:
            return f"the loss {loss:.3g} is {(loss - mean) / sigma:.0f} sigma above the last {len(self._losses)}"
        mean_norm = sum(self._norms) / len(self._norms)
        if gradient_norm > self.settings.gradient_factor * mean_norm:
            return f"the gradient norm {gradient_norm:.3g} is {gradient_norm / mean_norm:.0f} times the usual"
        return None

    def state(self) -> dict[str, Any]:
        """JSON-able state; floats survive exactly."""
        return {
            "num_skipped": self.num_skipped,
            "num_skipped_in_row": self.num_skipped_in_row,
            "losses": list(self._losses),
            "norms": list(self._norms),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.num_skipped = state["num_skipped"]
        self.num_skipped_in_row = state["num_skipped_in_row"]
        self._losses = deque(state["losses"], maxlen=WINDOW)
        self._norms = deque(state["norms"], maxlen=WINDOW)
