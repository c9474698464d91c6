"""Learning-rate schedules, as functions of the step and of the share of the run that is done.

The share counts steps, or time for a run that is limited by time: every schedule works with both.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from inkling.config import Field, Section


class ScheduleSettings(Section):
    """How the learning rate changes over the run."""

    name: Literal["trapezoid", "cosine", "linear", "constant", "plateau"] = "trapezoid"
    """trapezoid: flat, then linearly down. plateau: lowered whenever the validation loss stops falling."""
    peak: float = Field(1.0, gt=0)
    """What all learning rates are multiplied with; `inkling train --find-lr` suggests a value."""
    warmup_steps: int = Field(40, ge=0)
    """Steps of linear rise from zero."""
    cooldown: float = Field(0.65, gt=0, le=1)
    """trapezoid: share of the run over which the rate falls at the end."""
    final: float = Field(0.0, ge=0, le=1)
    """Share of the peak rate at the end of trapezoid, cosine and linear."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """plateau: what the rate is multiplied with."""
    plateau_patience: int = Field(2, ge=1)
    """plateau: evaluations without a better loss before the rate is lowered."""


def multiplier(schedule: ScheduleSettings, step: int, progress: float) -> float:
    """What the peak learning rate is multiplied with.

    Args:
        schedule: Which schedule.
        step: Steps done; warm-up counts them.
        progress: Share of the run that is done, from 0 to 1.
    """
    warmup = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    return schedule.peak * warmup * _shape(schedule, min(max(progress, 0.0), 1.0))


def _shape(schedule: ScheduleSettings, progress: float) -> float:
    match schedule.name:
        case "trapezoid":
            height = min(1.0, (1 - progress) / schedule.cooldown)
        case "linear":
            height = 1 - progress
        case "cosine":
            height = 0.5 * (1 + math.cos(math.pi * progress))
        case "constant" | "plateau":
            return 1.0
    return schedule.final + (1 - schedule.final) * height


class Plateau:
    """Lowers the rate when the validation loss has not improved for a while; does nothing for other schedules."""

    def __init__(self, schedule: ScheduleSettings) -> None:
        self._schedule = schedule
        self.factor = 1.0
        self._best: float | None = None
        self._num_bad = 0

    def update(self, loss: float) -> None:
        """Take note of a validation loss."""
        if self._schedule.name != "plateau":
            return
        if self._best is None or loss < self._best:
            self._best, self._num_bad = loss, 0
            return
        self._num_bad += 1
        if self._num_bad >= self._schedule.plateau_patience:
            self.factor *= self._schedule.plateau_factor
            self._num_bad = 0

    def state(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"factor": self.factor, "best": self._best, "num_bad": self._num_bad}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.factor, self._best, self._num_bad = state["factor"], state["best"], state["num_bad"]
