"""The one training loop. A stage supplies batches and a loss; everything else is the same for all of them.

Exactness: what a step does is a function of the weights, the optimizer state and `(seed, step)` alone. Random numbers
are seeded anew for each step, so that a resumed run repeats the uninterrupted one bit for bit on the same device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inkling.config import Field, Section
from inkling.models import LanguageModel
from inkling.optim._ema import WeightAverage
from inkling.optim._schedule import Plateau, ScheduleSettings, multiplier
from inkling.train.guard import Guard, GuardSettings
from inkling.train.precision import PrecisionName, autocast, gradient_scaler
from inkling.train.world import ALONE, World

Stop = Literal["steps", "time", "patience", "signal"]
EVALUATIONS_PER_RUN = 20


class LoopSettings(Section):
    """The training loop."""

    clip_norm: float = Field(1.0, ge=0)
    """Scale gradients down to this norm; 0 leaves them alone."""
    patience: int | None = Field(None, ge=0)
    """Stop after this many evaluations without a better validation loss; 0 never stops early. Default: 5 in pretraining
    on a text that is passed over four times or more, else never."""
    eval_every: int | None = Field(None, ge=1)
    """Steps between evaluations. Default: twenty evaluations over the run."""
    log_every: int = Field(10, ge=1)
    """Steps between lines in metrics.jsonl."""


@dataclass(frozen=True)
class MicroBatch:
    """Sequences that go through the model at once.

    Attributes:
        input_ids: (B, T).
        targets: (B, T): what follows each input; -100 is not predicted.
        segment_ids: (B, T), or None: attention stays inside equal numbers.
    """

    input_ids: Tensor
    targets: Tensor
    segment_ids: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """What a stage hands to the loop.

    Attributes:
        batch_fn: The micro-batches of a step, as a function of the step alone, or of the step and the weights. What a
            micro-batch is, the stage decides.
        loss_fn: Summed loss of one micro-batch.
        tokens_per_step: Predicted tokens in all micro-batches of a step, on average.
        seed: Seeds dropout, together with the step.
        tokens_fn: Predicted tokens of a step, where they differ; known once it is done.
        size_fn: What the loss of a step is divided by, where that is not its tokens; known once the step's first
            micro-batch is.
        halve: Makes micro-batches half as large from now on; false when they cannot be.
        measure_fn: What the stage knows of the step that was just done, for the log.
        state_fn: What the stage remembers between steps, if anything: tensors that a checkpoint keeps.
        restore_fn: Takes over what `state_fn` returned.
    """

    batch_fn: Callable[[int], Iterable[Any]]
    loss_fn: Callable[[nn.Module, Any], Tensor]
    tokens_per_step: float
    seed: int
    tokens_fn: Callable[[int], float] | None = None
    size_fn: Callable[[int], float] | None = None
    halve: Callable[[], bool] = lambda: False
    measure_fn: Callable[[], dict[str, float]] = dict
    state_fn: Callable[[], dict[str, Tensor]] = dict
    restore_fn: Callable[[dict[str, Tensor]], None] = lambda state: None


@dataclass(frozen=True)
class Limits:
    """When the run is over: after `steps`, or `time_s` seconds of work, whichever is given."""

    steps: int | None = None
    time_s: float | None = None


@dataclass
class LoopState:
    """Everything about a run that is neither a weight nor optimizer state. JSON-able."""

    step: int = 0
    elapsed_s: float = 0.0
    loss_average: float | None = None
    best_loss: float | None = None
    previous_best_loss: float | None = None
    best_step: int = 0
    evals_since_best: int = 0
    num_evals: int = 0
    evaluated_step: int = -1
    rate_scale: float = 1.0
    num_rollbacks: int = 0

    def average(self, loss: float) -> float:
        """Update the running average over about the last 100 steps, and return it."""
        weight = max(1 / 100, 1 / (self.step + 1))
        before = loss if self.loss_average is None else self.loss_average
        self.loss_average = before + weight * (loss - before)
        return self.loss_average


@dataclass(frozen=True)
class StepReport:
    """What one step did. `skipped` says why its update was left out, `measured` is what the stage adds."""

    step: int
    loss: float
    loss_average: float
    learning_rate: float
    gradient_norm: float
    tokens_per_s: float
    seconds: float
    skipped: str | None = None
    measured: dict[str, float] = field(default_factory=dict)


class Rollback(Exception):
    """The weights are suspect: go back to the last good checkpoint."""


@dataclass
class Trainer:
    """Model, optimizer and the state of the run; `run` is the loop.

    Args:
        average: Moving average of the weights, or None.
        world: The processes that train together; the task gives each its share of a step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    limits: Limits
    settings: LoopSettings
    schedule: ScheduleSettings
    guard_settings: GuardSettings
    precision: PrecisionName = "fp32"
    average: WeightAverage | None = None
    world: World = ALONE
    state: LoopState = field(default_factory=LoopState)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.guard = Guard(self.guard_settings)
        self.plateau = Plateau(self.schedule)
        self._scaler = gradient_scaler(self.device, self.precision)
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------ the loop

    def run(
        self,
        *,
        on_step: Callable[[StepReport], None],
        on_eval: Callable[[], float],
        on_pause: Callable[[], None],
        stop_requested: Callable[[], bool],
    ) -> Stop:
        """Train until a limit, early stopping or a request to stop; returns which.

        Args:
            on_step: Told of every step.
            on_eval: Evaluates the weights and returns what is to become small, such as the validation loss in nats;
                called at the start, at intervals and at the end.
            on_pause: Called between steps, when everything is consistent: the place to save.
            stop_requested: Asked between steps.

        Raises:
            Rollback: Too many steps in a row were bad.
        """
        started_s = time.monotonic() - self.state.elapsed_s
        while True:
            if self._evaluation_is_due():
                self._evaluate(on_eval)
            # All processes have to agree on the time, which the schedule may follow, and on stopping.
            self.state.elapsed_s, asked = self.world.largest(time.monotonic() - started_s, stop_requested())
            on_pause()
            if (stop := self._reason_to_stop()) is not None:
                return stop
            if asked:
                return "signal"
            on_step(self._step())
            (self.state.elapsed_s,) = self.world.largest(time.monotonic() - started_s)
            if self.guard.must_roll_back:
                raise Rollback

    @property
    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1: of its steps, or of its time."""
        shares = [0.0]
        if self.limits.steps is not None:
            shares.append(self.state.step / self.limits.steps)
        if self.limits.time_s is not None:
            shares.append(self.state.elapsed_s / self.limits.time_s)
        return min(max(shares), 1.0)

    def _reason_to_stop(self) -> Stop | None:
        if self.settings.patience and self.state.evals_since_best >= self.settings.patience:
            return "patience"
        if self.progress >= 1.0:
            return "steps" if self.limits.steps is not None and self.state.step >= self.limits.steps else "time"
        return None

    # ------------------------------------------------------------ evaluation

    def _evaluation_is_due(self) -> bool:
        state = self.state
        if state.evaluated_step == state.step:
            return False
        if state.step == 0 or self.progress >= 1.0:
            return True
        if self.settings.eval_every is not None:
            return state.step % self.settings.eval_every == 0
        return self.progress * EVALUATIONS_PER_RUN >= state.num_evals

    def _evaluate(self, on_eval: Callable[[], float]) -> None:
        loss = on_eval()
        state = self.state
        state.num_evals += 1
        state.evaluated_step = state.step
        self.plateau.update(loss)
        if state.best_loss is None or loss < state.best_loss:
            state.previous_best_loss, state.best_loss, state.best_step = state.best_loss, loss, state.step
            state.evals_since_best = 0
        else:
            state.evals_since_best += 1

    # ------------------------------------------------------------ one step

    def _step(self) -> StepReport:
        started_s = time.monotonic()
        state = self.state
        self._seed_step()
        rate = self._set_learning_rates()
        loss = self._backward_within_memory()
        self._scaler.unscale_(self.optimizer)
        norm = self._clip()
        skipped = self.guard.reason_to_skip(loss, norm)
        if skipped is None:
            self._scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.model)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if isinstance(self.model, LanguageModel):
            self.model.after_step(self.world.sum_)
        if skipped is None:
            state.average(loss)
        state.step += 1
        tokens = self.task.tokens_per_step if self.task.tokens_fn is None else self.task.tokens_fn(state.step - 1)
        seconds = time.monotonic() - started_s
        return StepReport(
            step=state.step,
            loss=loss,
            loss_average=loss if state.loss_average is None else state.loss_average,
            learning_rate=rate,
            gradient_norm=norm,
            tokens_per_s=tokens / seconds,
            seconds=seconds,
            skipped=skipped,
            measured=self.task.measure_fn(),
        )

    def _clip(self) -> float:
        """The norm of all gradients, which are scaled down where it is too large: most steps need no pass over them."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        total = nn.utils.get_total_norm(gradients)
        norm = total.item()
        if 0 < self.settings.clip_norm < norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self.settings.clip_norm, total)
        return norm

    def _backward_within_memory(self) -> float:
        """The same with smaller micro-batches when memory does not suffice: more of them make the same step."""
        while True:
            try:
                return self._backward()
            except RuntimeError as error:  # one of several processes cannot start its step again alone
                if not is_out_of_memory(error) or self.world.size > 1 or not self.task.halve():
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._seed_step()

    def _backward(self) -> float:
        """Accumulate the gradients of the step's mean loss over its micro-batches; returns that loss in nats."""
        total = torch.zeros((), device=self.device)
        task, step = self.task, self.state.step
        for batch in task.batch_fn(step):
            size = task.tokens_per_step if task.size_fn is None else task.size_fn(step)
            with autocast(self.device, self.precision):
                loss = task.loss_fn(self.model, batch) / size
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self.world.sum_([total, *(p.grad for p in self._parameters if p.grad is not None)])
        return total.item()

    def _seed_step(self) -> None:
        """Dropout differs from step to step and from process to process."""
        torch.manual_seed(step_seed(self.task.seed, self.state.step * self.world.size + self.world.rank))

    def _set_learning_rates(self) -> float:
        scale = multiplier(self.schedule, self.state.step, self.progress)
        scale *= self.plateau.factor * self.state.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        return float(self.optimizer.param_groups[0]["lr"])

    # ------------------------------------------------------------ saving and restoring

    def values(self) -> dict[str, Any]:
        """The JSON-able part of the training state."""
        return {
            "loop": asdict(self.state),
            "guard": self.guard.state(),
            "plateau": self.plateau.state(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Take over what `values` returned."""
        self.state = LoopState(**values["loop"])
        self.guard.restore(values["guard"])
        self.plateau.restore(values["plateau"])
        self._scaler.load_state_dict(values["scaler"])


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the machine, had no memory left; on a CPU torch says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's random numbers: the same however often the run was interrupted before."""
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**63
