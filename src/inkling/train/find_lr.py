"""The learning-rate range test of Smith 2017 (arXiv:1506.01186): one short run whose rates rise from far too low to far
too high, on weights that are thrown away."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from inkling import files
from inkling.data.loader import PackedWindows
from inkling.data.stages import StagedWindows
from inkling.optim._schedule import ScheduleSettings
from inkling.train import choose
from inkling.train.guard import GuardSettings
from inkling.train.loop import Limits, LoopSettings, StepReport, Trainer
from inkling.train.pretrain import pretraining_task
from inkling.train.settings import TrainSettings

LOWEST, HIGHEST = 1e-3, 1e2
"""All rates are multiplied with the same factor, from the first to the second of these."""
_SMOOTHING = 0.9
_RISE = 0.02
"""Share of the whole fall that counts as a rise."""
_DIVERGED = 1.5
"""The test is over when the smoothed loss is this many times the lowest."""


@dataclass(frozen=True)
class RangeTest:
    """What the test found.

    Attributes:
        factors: Of each step: what all learning rates were multiplied with.
        losses: Smoothed, in nats per token.
        steepest: Factor where the loss falls fastest, per factor of e.
        suggestion: Factor where the loss stops falling for the first time. A loss that falls again after that falls
            because the run goes on, not because such rates are good.
    """

    factors: list[float]
    losses: list[float]
    steepest: float
    suggestion: float


class _RangeTrainer(Trainer):
    """A trainer whose rates rise exponentially over the run."""

    def _set_learning_rates(self) -> float:
        factor = float(LOWEST * (HIGHEST / LOWEST) ** self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return factor


def range_test(
    settings: TrainSettings,
    choices: dict[str, object],
    windows: PackedWindows,
    device: torch.device,
    *,
    num_steps: int,
    on_step: Callable[[int], None],
) -> RangeTest:
    """Run the test for the run that `settings` and `choices` describe."""
    model = choose.build_model(settings, choices, device)
    optimizer = choose.build_optimizer(settings, choices, model)
    task = pretraining_task(
        StagedWindows(windows),
        micro_batch=int(str(choices["micro_batch"])),
        seed=settings.seed,
        device=device,
    )
    trainer = _RangeTrainer(
        model,
        optimizer,
        task,
        Limits(num_steps),
        LoopSettings(clip_norm=settings.loop.clip_norm, eval_every=1 << 40),
        ScheduleSettings(),
        GuardSettings(sigmas=1e9, gradient_factor=1e9, skips_before_rollback=1 << 30),
        precision=choices["precision"],  # type: ignore[arg-type]
    )
    factors: list[float] = []
    losses: list[float] = []
    average = 0.0

    def keep(report: StepReport) -> None:
        nonlocal average
        if math.isfinite(report.loss):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * report.loss
            factors.append(report.learning_rate)
            losses.append(average / (1 - _SMOOTHING ** (len(losses) + 1)))
        on_step(report.step)

    def has_diverged() -> bool:
        return len(losses) > num_steps // 10 and losses[-1] > _DIVERGED * min(losses)

    trainer.run(on_step=keep, on_eval=lambda: 0.0, on_pause=lambda: None, stop_requested=has_diverged)
    return judge(factors, losses)


def judge(factors: list[float], losses: list[float]) -> RangeTest:
    """Find where the loss first stops falling, and where it falls fastest before that."""
    lowest, tolerance = 0, _RISE * (losses[0] - min(losses))
    for number, loss in enumerate(losses):
        if loss < losses[lowest]:
            lowest = number
        elif loss > losses[lowest] + tolerance and losses[lowest] < losses[0] - tolerance:
            break
    width = max(1, len(losses) // 20)
    slopes = [losses[min(i + width, lowest)] - losses[max(0, i - width)] for i in range(lowest + 1)]
    steepest = min(range(len(slopes)), key=slopes.__getitem__)
    return RangeTest(factors, losses, steepest=factors[steepest], suggestion=factors[lowest])


def plot(test: RangeTest, path: Path, title: str) -> None:
    """Draw loss over factor, with the suggestion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes 0.3 s
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(test.factors, test.losses, color="tab:blue", label="training loss, smoothed")
    for factor, color, name in (
        (test.steepest, "tab:green", "steepest"),
        (test.suggestion, "tab:red", "suggested"),
    ):
        axes.axvline(factor, color=color, linestyle="--", linewidth=1, label=f"{name}: × {factor:.2g}")
    axes.set(xscale="log", title=title, xlabel="factor on all learning rates", ylabel="loss, nats per token")
    axes.set_ylim(min(test.losses) - 0.1, test.losses[0] + 0.5)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_file(path, lambda temporary: figure.savefig(temporary, format="png"))
