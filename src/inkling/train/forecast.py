"""What a run will take and give, before it begins: memory and disk are counted, steps timed, the loss is by a law."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from inkling import models
from inkling.data.loader import PackedWindows
from inkling.data.shards import Dataset
from inkling.models import LanguageModel
from inkling.train import growth, scaling
from inkling.train.loop import EVALUATIONS_PER_RUN, Limits, StepReport, Trainer
from inkling.train.memory import Memory, memory_of
from inkling.train.settings import TrainSettings
from inkling.train.trial import trial
from inkling.train.world import ALONE, World

_TIMED_SECONDS, _MIN_STEPS, _MAX_STEPS = 3.0, 4, 12


@dataclass(frozen=True)
class Forecast:
    """What to expect of a run.

    Attributes:
        steps: Of the whole run; for one limited by time, as many as fit.
        tokens: That it trains on.
        passes: Over the training text.
        seconds: From the first step to the end of the last one, evaluations, samples and checkpoints included.
        seconds_per_step: Measured.
        optimizer_share: Of the time of a step, for the optimizer alone; measured.
        memory: Beside the program.
        disk_bytes: Of the run directory at its largest.
        bits_per_byte: Expected on validation text, or None where the text is too different from what the law knows.
        by_law: The same, without what earlier runs on the text told.
        error: The standard error of `bits_per_byte`, relative.
        pilots: What shorter runs like this one reached, by their steps.
    """

    steps: int
    tokens: int
    passes: float
    seconds: float
    seconds_per_step: float
    optimizer_share: float
    memory: Memory
    disk_bytes: int
    bits_per_byte: float | None
    by_law: float | None
    error: float
    pilots: dict[int, float]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        memory = asdict(self.memory) | {"total": self.memory.total}
        return asdict(self) | {"memory": memory, "sentence": self.sentence()}

    def sentence(self) -> str:
        """One line for people."""
        loss = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.3f} bits per byte ± {self.error:.0%}"
        return (
            f"expected: {format_duration(self.seconds)}{loss}; {self.memory.total / 1e6:,.0f} MB of memory beside the "
            f"program, {self.disk_bytes / 1e6:,.0f} MB of disk; the optimizer: {self.optimizer_share:.0%} of a step"
        )


def forecast(
    settings: TrainSettings,
    dataset: Dataset,
    choices: dict[str, Any],
    windows: PackedWindows,
    device: torch.device,
    *,
    evaluation_seconds: Callable[[LanguageModel], float],
    ngram: float | None,
    ratios: Sequence[float] = (),
    pilots_fn: Callable[[int, float], dict[int, float]] = lambda steps, step_s: {},
    world: World = ALONE,
) -> Forecast:
    """Time some steps on a model that is thrown away, and count the rest.

    Args:
        choices: Complete: what `choose.choose` and `choose.time_choices` returned.
        evaluation_seconds: Time of one evaluation with its sample, measured on the model given.
        ratios: What earlier runs on the same text reached, divided by what the law alone said.
        pilots_fn: (steps of the run, seconds of a step) → bits per byte of shorter runs like it, by their steps.
        world: Of several processes, this one's share of a step is timed.
        ngram: Bits per byte of a byte n-gram model on the validation text, or None where nobody counted it.
    """
    config = models.load(settings.arch).Config.from_dict(choices["model_config"])
    memory = memory_of(
        config,
        tokens=choices["micro_batch"] * settings.context,
        optimizer=choices["optimizer"],
        precision=choices["precision"],
        recompute=settings.machine.recompute,
    )
    trainer = trial(settings, choices, windows, device, Limits(_MAX_STEPS), world=world)
    assert isinstance(trainer.model, LanguageModel)
    step_s, optimizer_s = _time_steps(trainer)
    share = growth.mean_share(settings.growth)
    step_s = optimizer_s + share * (step_s - optimizer_s)
    evaluation_s = evaluation_seconds(trainer.model)
    del trainer  # the pilots build others
    if choices["average_decay"]:
        evaluation_s *= 2
    evaluations_s = (EVALUATIONS_PER_RUN + 1) * evaluation_s
    if choices["steps"] is not None:
        every = settings.loop.eval_every or max(1, choices["steps"] // EVALUATIONS_PER_RUN)
        evaluations_s = (choices["steps"] / every + 1) * evaluation_s
    tokens_per_step = round(share * choices["batch_size"] * settings.context)
    steps = choices["steps"]
    if steps is None:
        assert settings.time is not None
        steps = max(1, int((settings.time - evaluations_s) / step_s))
    pilots = pilots_fn(steps, step_s) if ngram is not None else {}
    expected = (
        scaling.expected(
            block_parameters=models.cost(models.without_memory(config)).block_parameters,
            tokens=steps * tokens_per_step,
            text_tokens=dataset.train.num_tokens,
            bytes_per_token=dataset.train.num_bytes / dataset.train.num_tokens,
            ngram=ngram,
            ratios=ratios,
            pilots={length * tokens_per_step: bits for length, bits in pilots.items()},
        )
        if ngram is not None
        else None
    )
    state = memory.weights + memory.optimizer
    return Forecast(
        steps=steps,
        tokens=steps * tokens_per_step,
        passes=steps * tokens_per_step / dataset.train.num_tokens,
        seconds=settings.time if choices["steps"] is None and settings.time else steps * step_s + evaluations_s,
        seconds_per_step=step_s,
        optimizer_share=optimizer_s / step_s,
        memory=memory,
        disk_bytes=memory.weights + (settings.checkpoint.keep_steps + 1) * state,
        bits_per_byte=None if expected is None else expected.bits_per_byte,
        by_law=None if expected is None else expected.by_law,
        error=0.0 if expected is None else expected.error,
        pilots=pilots,
    )


def _time_steps(trainer: Trainer) -> tuple[float, float]:
    """Median seconds of a step, and of the optimizer's part in it, over a few real steps."""
    device, started = trainer.device, 0.0
    optimizer_s: list[float] = []
    reported: list[StepReport] = []

    def begin(*_: Any) -> None:
        nonlocal started
        synchronise(device)
        started = time.perf_counter()

    def end(*_: Any) -> None:
        synchronise(device)
        optimizer_s.append(time.perf_counter() - started)

    trainer.optimizer.register_step_pre_hook(begin)
    trainer.optimizer.register_step_post_hook(end)
    deadline = time.monotonic() + _TIMED_SECONDS
    trainer.run(
        on_step=reported.append,
        on_eval=lambda: 0.0,
        on_pause=lambda: None,
        stop_requested=lambda: len(reported) >= _MIN_STEPS and time.monotonic() > deadline,
    )
    trainer.model.zero_grad(set_to_none=True)
    seconds = [trainer.task.tokens_per_step / report.tokens_per_s for report in reported]
    return median(seconds[1:]), median(optimizer_s[1:] or [0.0])


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU still computes, so that a clock tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def format_duration(seconds: float) -> str:
    """Such as 45 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
