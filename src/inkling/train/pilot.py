"""Pilots: the run itself, made short. From their losses that of the whole run is extrapolated.

A pilot has the run's model, text, order of the text, batch and rates, and its whole schedule shrunk to fewer steps, so
that its loss is one at the end of a cool-down, as the run's will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import inkling
from inkling.data.loader import PackedWindows
from inkling.data.stages import Stage
from inkling.models import LanguageModel
from inkling.train import growth
from inkling.train.kept import Kept
from inkling.train.loop import EVALUATIONS_PER_RUN, Limits
from inkling.train.settings import TrainSettings
from inkling.train.trial import trial

MIN_STEPS = 64
"""Of the longer pilot. Below that, the loss does not yet fall as it will."""
_WITHOUT_INFLUENCE = {"config", "debug", "data", "out", "preset", "size", "memory", "devices", "resume", "find_lr"}
_WITHOUT_INFLUENCE |= {"as_json", "pilot", "checkpoint", "machine", "log"}
"""Settings that leave the loss alone, or that are in the choices. Precision changes it less than the seed does."""
_CHOICES = ("model_config", "dropout", "average_decay", "weight_decay", "batch_size", "steps", "optimizer")
_NEARLY = 0.7
EVAL_TOKENS = 131_072
"""Validation tokens that a pilot is scored on, in windows spread over the split: as a level, fewer are too noisy."""


@dataclass(frozen=True)
class Budget:
    """What pilots may cost: a share of the run's steps, but so many seconds in any case, and so many at most."""

    share: float
    least_s: float = 0.0
    most_s: float = math.inf


NOTHING = Budget(0.0)
BY_DEFAULT = Budget(0.15, 60.0, 300.0)

ScoreFn = Callable[[LanguageModel], float]
"""Bits per byte of a model on validation text."""


def lengths(steps: int, step_s: float, budget: Budget) -> list[int]:
    """Steps of the pilots of a run of `steps`: of one, at most half the run, and of one half as long before it.

    Together they take what the budget allows. None where that is so little that they would tell nothing.
    """
    total = min(max(budget.share * steps, budget.least_s / step_s), budget.most_s / step_s)
    longest = int(min(total / 1.5, steps / 2))
    return [longest // 2, longest] if longest >= MIN_STEPS else []


class KeptPilots:
    """Pilots of one run in the user's cache, so that planning and training it costs them once."""

    def __init__(self, settings: TrainSettings, choices: dict[str, Any], data_sha256: str) -> None:
        dumped = settings.model_dump(mode="json")
        fixed = {name: value for name, value in dumped.items() if name not in _WITHOUT_INFLUENCE}
        chosen = {name: choices[name] for name in _CHOICES}
        self._kept = Kept("pilots.json", [fixed, chosen, data_sha256, inkling.__version__])

    def read(self) -> dict[int, float]:
        """Bits per byte by the number of steps. A damaged entry is an empty one."""
        try:
            return {int(steps): float(bits) for steps, bits in self._kept.read().items()}
        except (AttributeError, TypeError, ValueError):
            return {}

    def write(self, pilots: dict[int, float]) -> None:
        """Keep them."""
        self._kept.write({str(steps): bits for steps, bits in sorted(pilots.items())})


def train_pilots(
    settings: TrainSettings,
    choices: dict[str, Any],
    windows: PackedWindows,
    device: torch.device,
    *,
    steps: int,
    lengths: Sequence[int],
    kept: KeptPilots,
    score_fn: ScoreFn,
    on_step: Callable[[int, int], None],
) -> dict[int, float]:
    """Bits per byte of pilots of a run of `steps`, by their own steps: those kept, or else those of `lengths`.

    Args:
        lengths: From short to long. How many steps fit into a time differs a little each time; what was kept is good
            enough when its longest is nearly as long.
        on_step: Told of the steps done, and of those to do in all.
    """
    pilots = {length: bits for length, bits in kept.read().items() if length < steps}
    if lengths and max(pilots, default=0) >= _NEARLY * lengths[-1]:
        return pilots
    missing = [length for length in lengths if length not in pilots]
    total = sum(missing)
    for number, length in enumerate(missing):
        done = sum(missing[:number])

        def tell(step: int, done: int = done) -> None:
            on_step(done + step, total)

        pilots[length] = train_pilot(
            settings,
            choices,
            windows,
            device,
            steps=length,
            of_steps=steps,
            score_fn=score_fn,
            on_step=tell,
        )
        kept.write(pilots)
    return pilots


def train_pilot(
    settings: TrainSettings,
    choices: dict[str, Any],
    windows: PackedWindows,
    device: torch.device,
    *,
    steps: int,
    of_steps: int,
    score_fn: ScoreFn,
    on_step: Callable[[int], None] = lambda step: None,
) -> float:
    """Train for `steps` what is planned for `of_steps`, and return its bits per byte.

    With a moving average of the weights, the better of the two is scored, as in a run.
    """
    short = shortened(settings, steps / of_steps)
    every = max(1, steps // EVALUATIONS_PER_RUN) if settings.schedule.name == "plateau" else 1 << 40
    stages = growth.stages_of(settings.growth, context=settings.context, batch_size=choices["batch_size"], steps=steps)
    trainer = trial(
        short, choices, windows, device, Limits(steps), stages=[Stage(**stage) for stage in stages], eval_every=every
    )
    assert isinstance(trainer.model, LanguageModel)
    model, average, score = trainer.model, trainer.average, math.inf

    def evaluate() -> float:
        nonlocal score
        if trainer.state.step > 0:
            score = score_fn(model)
            if average is not None:
                with average.applied(model):
                    score = min(score, score_fn(model))
        return score

    trainer.run(
        on_step=lambda report: on_step(report.step),
        on_eval=evaluate,
        on_pause=lambda: None,
        stop_requested=lambda: False,
    )
    return score


def shortened(settings: TrainSettings, share: float) -> TrainSettings:
    """The settings with everything that is counted in steps made so much shorter; the rest follows the progress."""
    schedule, muon = settings.schedule, settings.muon
    return settings.model_copy(
        update={
            "schedule": schedule.model_copy(update={"warmup_steps": round(schedule.warmup_steps * share)}),
            "muon": muon.model_copy(update={"momentum_warmup": round(muon.momentum_warmup * share)}),
        }
    )
