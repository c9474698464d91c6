"""Shorter rows and smaller batches at the beginning of a run: settings, and the steps at which each stage begins.

Where a stage begins is settled in steps before the run, also for one that is limited by time, and kept with its
choices: what a step sees stays a function of `(seed, step)`. Of a time limit the steps are those of the forecast, so a
run that turns out faster than that is in its last stage for longer.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import mean
from typing import Annotated, Any

from inkling.config import Field, Section
from inkling.data.stages import Stage
from inkling.errors import ConfigError


class GrowthSettings(Section):
    """Shorter rows and smaller batches at the beginning of the run."""

    context: list[Annotated[int, Field(ge=2)]] = Field([])
    """Tokens that the first stages see at once, such as 64,128; each divides the context. The text is the same."""
    batch: list[Annotated[float, Field(gt=0, le=1)]] = Field([])
    """Shares of the batch that a step of the first stages takes, such as 0.25,0.5."""
    until: float = Field(0.5, gt=0, lt=1)
    """Share of the steps after which both are whole; the stages before share it evenly."""


def mean_share(growth: GrowthSettings) -> float:
    """Share of a whole batch that a step takes, on average over the run."""
    return growth.until * mean(growth.batch) + 1 - growth.until if growth.batch else 1.0


def stages_of(
    growth: GrowthSettings, *, context: int, batch_size: int, steps: int, world_size: int = 1
) -> list[dict[str, Any]]:
    """The stages of a run of so many steps, as `run.json` keeps them; none when nothing grows.

    Raises ConfigError for a row that does not divide the context, or rows that do not suit the number of processes.
    """
    begins = {growth.until * place / len(some) for some in (growth.context, growth.batch) for place in range(len(some))}
    if not begins:
        return []
    stages: dict[int, Stage] = {}
    for begin in sorted({*begins, growth.until}):
        share = _at(growth.batch, growth.until, begin, whole=1.0)
        row = round(_at(growth.context, growth.until, begin, whole=context))
        stage = Stage(round(begin * steps), row, max(1, round(share * batch_size)))
        stages[stage.first_step] = stage  # of stages that are shorter than half a step, the last
        if context % row:
            raise ConfigError(f"growth.context {row} does not divide the context of {context}")
        if stage.windows * context // row % world_size:
            raise ConfigError(
                f"a stage of {stage.windows * context // row} rows cannot be shared by {world_size} devices"
            )
    return [asdict(stage) for stage in stages.values()]


def _at(values: list[Any], until: float, begin: float, *, whole: float) -> float:
    """The value that holds from `begin` on, a share of the run."""
    place = int(begin / until * len(values) + 1e-9)
    return float(values[place]) if place < len(values) else whole
