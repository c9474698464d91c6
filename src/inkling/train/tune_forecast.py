"""What a run of tuning will take, before it begins: a step and an evaluation are timed, the rest is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from inkling.models import LanguageModel
from inkling.train.branching import num_computed
from inkling.train.forecast import format_duration, synchronise
from inkling.train.loop import EVALUATIONS_PER_RUN
from inkling.train.memory import Memory, memory_of, moment_bytes
from inkling.train.stage import Stage
from inkling.train.tune_settings import TuneSettings

_FP32 = 4


@dataclass(frozen=True)
class TuningForecast:
    """What to expect of a run.

    Attributes:
        steps: Of the whole run; for one limited by time, as many as fit.
        seconds: From the start to the end of the last step, evaluations included.
        before_s: What is computed once, before the first step.
        seconds_per_step: Measured on one step, rollouts and optimizer included.
        optimizer_share: Of that, for the optimizer alone.
        evaluation_s: Of one evaluation.
        memory: Beside the program.
        disk_bytes: Of the run directory at its largest.
    """

    steps: int
    seconds: float
    before_s: float
    seconds_per_step: float
    optimizer_share: float
    evaluation_s: float
    memory: Memory
    disk_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        memory = asdict(self.memory) | {"total": self.memory.total}
        return asdict(self) | {"memory": memory, "sentence": self.sentence()}

    def sentence(self) -> str:
        """One line for people."""
        return (
            f"expected: {format_duration(self.seconds)} ({self.steps:,} steps of {self.seconds_per_step:.2g} s, "
            f"evaluations of {self.evaluation_s:.2g} s); {self.memory.total / 1e6:,.0f} MB of memory beside the "
            f"program, {self.disk_bytes / 1e6:,.0f} MB of disk; the optimizer: {self.optimizer_share:.0%} of a step"
        )


def forecast(
    settings: TuneSettings,
    choices: dict[str, Any],
    model: LanguageModel,
    stage: Stage,
    num_items: int,
    optimizer_fn: Callable[[], torch.optim.Optimizer],
    evaluation_seconds: Callable[[Stage], float],
) -> TuningForecast:
    """Time a step and an evaluation; the weights stay as they are.

    Args:
        choices: Complete but for the forecast.
        stage: The method, at the items of one step.
        num_items: Of the whole run.
        optimizer_fn: Builds the optimizer of the run, once the stage has begun: it may add to the model.
        evaluation_seconds: Of one evaluation of the whole run.
    """
    device = stage.setting.device
    before_s = seconds_of(lambda: stage.begin(model), device)
    if stage.begins_with_all_items:
        before_s *= num_items / len(stage.items)
    kept = sum(tensor.nbytes for tensor in stage.task().state_fn().values())
    _step(stage, model)  # the first one makes kernels and room
    step_s = seconds_of(lambda: _step(stage, model), device)
    with torch.autocast(device.type, enabled=False):  # as in the run
        optimizer_s = _optimizer_seconds(optimizer_fn(), device)
    model.zero_grad(set_to_none=True)
    step_s += optimizer_s
    evaluation_s = evaluation_seconds(stage)
    steps = choices["steps"]
    if steps is None:
        assert settings.time is not None
        steps = max(1, int((settings.time - before_s - (EVALUATIONS_PER_RUN + 1) * evaluation_s) / step_s))
    every = settings.loop.eval_every or max(1, steps // EVALUATIONS_PER_RUN)
    seconds = before_s + steps * step_s + (steps // every + 1) * evaluation_s
    memory = _memory(settings, choices, model, stage)
    whole = _FP32 * choices["num_parameters"]
    state = memory.gradients + memory.optimizer + kept  # as many weights as gradients
    return TuningForecast(
        steps=steps,
        seconds=settings.time if choices["steps"] is None and settings.time else seconds,
        before_s=before_s,
        seconds_per_step=step_s,
        optimizer_share=optimizer_s / step_s,
        evaluation_s=evaluation_s,
        memory=memory,
        disk_bytes=whole + (settings.checkpoint.keep_steps + 1) * state,
    )


def _step(stage: Stage, model: nn.Module) -> None:
    """Gradients of one step, left where an optimizer finds them."""
    model.zero_grad(set_to_none=True)
    for batch in stage.micro_batches(0):
        with stage.setting.autocast():
            loss = stage.loss(model, batch) / stage.size(0)
        loss.backward()  # type: ignore[no-untyped-call]


def _optimizer_seconds(optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """Of one of its steps, where there are gradients: they and its rates are set to 0, so that no weight moves."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()
    optimizer.step()  # the first one makes its state
    return seconds_of(optimizer.step, device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """How long some work takes, on a GPU too."""
    synchronise(device)
    started_s = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started_s


def _memory(settings: TuneSettings, choices: dict[str, Any], model: LanguageModel, stage: Stage) -> Memory:
    """As of pretraining, but gradients and moments of what is trained alone, and weights as they are held."""
    items = [stage.items[number] for number in stage.order.items(0)]
    tokens = min(max(choices["micro_batch"], max(map(num_computed, items))), sum(map(num_computed, items)))
    counted = memory_of(model.config, tokens=tokens, optimizer=settings.optimizer, precision=choices["precision"])
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    has_reference = settings.rl.kl > 0 and settings.adapter == "none"
    trained = _FP32 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    moments = moment_bytes(model, settings.optimizer)
    return replace(counted, weights=(1 + has_reference) * held, gradients=trained, optimizer=moments)
