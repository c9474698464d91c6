"""One session of work on a run: what is saved when, and what happens on Ctrl-C, an exception or a bad stretch."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from inkling import checkpoint, machine
from inkling.checkpoint import RunRecord, TrainingState
from inkling.config import Duration, Field, Section
from inkling.errors import CheckpointError, TrainingError
from inkling.optim._state import flatten_state, restore_state
from inkling.train.background import Background
from inkling.train.log import SilentLog
from inkling.train.loop import Rollback, StepReport, Stop, Trainer
from inkling.train.signals import stop_on_signals

_AVERAGE_PREFIX = "average."
_OPTIMIZER_PREFIX = "optimizer."
_TASK_PREFIX = "task."
_PER_RUN = 10
"""Checkpoints of a run that is too short for its interval: one each tenth."""
_WRITING_SHARE = 0.05
"""Of the time, at most, that is spent on writing those."""
_COPY_SHARE = 0.1
"""Of the free memory: a checkpoint larger than this is written before training goes on."""


class CheckpointSettings(Section):
    """What is kept for resuming. The best weights by validation are always kept, in the run directory itself."""

    every: int | None = Field(None, ge=1)
    """Steps between checkpoints. Default: one each tenth of the run, and about every ten minutes."""
    interval: Duration = 600.0
    """Longest time between checkpoints when `every` is not given, such as 10m."""
    keep_steps: int = Field(2, ge=1)
    """Checkpoints that are kept; older ones are deleted."""
    keep_epochs: int = Field(0, ge=0)
    """Also keep a checkpoint from the end of each of the last so many passes over the data."""


class Session:
    """Runs a trainer inside a run directory until it is finished, interrupted or given up.

    Args:
        run: Run directory; its model files and `run.json` exist.
        record: Content of `run.json`.
        trainer: Ready to run, or to be restored.
        settings: When to save.
        log: The run's log files.
        log_every: Steps between lines in metrics.jsonl.
        flops_per_token: Operations of the model, forward and backward.
        peak_flops: Operations per second of a large matrix product on this machine.
        epochs_fn: How often the training text was passed over after so many steps.
        evaluate: Scores of the model as it is.
        sample: A text written by the model, or None.
        on_progress: Shown to the user after each step.
        keep_best: Writes the model as it is as the run's best.
        stored_fn: The weights that a checkpoint keeps.
        objective: What is to become small, of the scores.

    Of several processes all run the trainer, and the first one alone writes and evaluates.
    """

    def __init__(
        self,
        run: Path,
        record: RunRecord,
        trainer: Trainer,
        settings: CheckpointSettings,
        log: SilentLog,
        *,
        log_every: int,
        flops_per_token: float,
        peak_flops: float,
        epochs_fn: Callable[[int], float],
        evaluate: Callable[[], dict[str, float]],
        sample: Callable[[], str | None],
        on_progress: Callable[[Trainer, StepReport], None],
        keep_best: Callable[[nn.Module], None],
        stored_fn: Callable[[nn.Module], dict[str, Tensor]] = nn.Module.state_dict,
        objective: Callable[[dict[str, float]], float] = lambda scores: scores["val_loss"],
    ) -> None:
        self.run_path = run
        self.record = record
        self.trainer = trainer
        self.world = trainer.world
        self.settings = settings
        self.log = log
        self.log_every = log_every
        self.flops_per_token = flops_per_token
        self.peak_flops = peak_flops
        self.epochs_fn = epochs_fn
        self.evaluate = evaluate
        self.sample = sample
        self.on_progress = on_progress
        self.keep_best = keep_best
        self.stored_fn = stored_fn
        self.objective = objective
        self.last_evaluation: dict[str, float] = {}
        self._saved_step = -1
        self._saved_s = time.monotonic()
        self._saved_progress = 0.0
        self._writing_s = math.inf
        self._consistent = True
        self._went_back_to = ""
        self._background = Background()

    # ------------------------------------------------------------ the session

    def work(self) -> Stop:
        """Train; save whatever happens. Returns why it ended."""
        began_step = self.trainer.state.step
        self.record.status = "running"
        self.record.sessions.append({"started": _now(), "from_step": began_step, "process": machine.this_process()})
        self._write_record()
        stop: Stop | None = None
        try:
            with stop_on_signals() as stop_requested:
                stop = self._train(stop_requested)
                self.save(final=True)
                self._background.wait()
        except BaseException as error:
            self._save_after(error)
            raise
        finally:
            self._end_session(stop)
        return stop

    def _train(self, stop_requested: Callable[[], bool]) -> Stop:
        while True:
            try:
                return self.trainer.run(
                    on_step=self._on_step,
                    on_eval=self._on_eval,
                    on_pause=self._on_pause,
                    stop_requested=stop_requested,
                )
            except Rollback:
                self._roll_back()

    def _save_after(self, error: BaseException) -> None:
        """An exception ends the run: keep the last consistent state, unless saving is what failed."""
        self.log.line(f"{type(error).__name__}: {error}", level="ERROR")
        with suppress(CheckpointError):
            self._background.wait()
        if self._consistent and not isinstance(error, (CheckpointError, TrainingError)):
            self.save(final=True)

    def _end_session(self, stop: Stop | None) -> None:
        state = self.trainer.state
        self.record.status = "failed" if stop is None else "interrupted" if stop == "signal" else "finished"
        self.record.sessions[-1] |= {"ended": _now(), "to_step": state.step, "stop": stop or "error"}
        self.record.results |= {
            "steps": state.step,
            "train_seconds": round(state.elapsed_s, 1),
            "best_val_loss": state.best_loss,
            "best_step": state.best_step,
            "skipped_steps": self.trainer.guard.num_skipped,
            "rollbacks": state.num_rollbacks,
        }
        self.log.session_ends(f"{self.record.status} at step {state.step}")
        self._write_record()

    def _write_record(self) -> None:
        if self.world.is_main:
            checkpoint.write_run(self.run_path, self.record)

    # ------------------------------------------------------------ what the loop calls

    def _on_step(self, report: StepReport) -> None:
        self._consistent = True
        if report.skipped is not None:
            self.log.line(f"step {report.step} | SKIPPED | {report.skipped}", level="WARN")
        if report.step % self.log_every == 0 or report.step == 1 or report.skipped is not None:
            self._log_step(report)
        self.on_progress(self.trainer, report)

    def _log_step(self, report: StepReport) -> None:
        state = self.trainer.state
        flops = report.tokens_per_s * self.flops_per_token
        memory_mb = memory_in_use_mb(self.trainer.device)
        best = "-" if state.best_loss is None else f"{state.best_loss:.4f}"
        previous = "-" if state.previous_best_loss is None else f"{state.previous_best_loss:.4f}"
        self.log.line(
            f"step {report.step} | loss {report.loss:.4f} | average {report.loss_average:.4f} | "
            f"best {best} (before {previous}) | lr {report.learning_rate:.2e} | grad norm {report.gradient_norm:.3f} | "
            f"{report.tokens_per_s:,.0f} tokens/s | "
            f"{flops / 1e9:,.0f} GFLOP/s, {flops / self.peak_flops:.0%} of the peak | "
            f"{memory_mb:,.0f} MB | eta {self._eta()}"
            + "".join(f" | {name} {value:.4g}" for name, value in report.measured.items())
        )
        self.log.metrics(
            report.step,
            {
                "loss": report.loss,
                "loss_average": report.loss_average,
                "learning_rate": report.learning_rate,
                "gradient_norm": report.gradient_norm,
                "tokens_per_s": report.tokens_per_s,
                "gflops": flops / 1e9,
                "peak_share": flops / self.peak_flops,
                "memory_mb": memory_mb,
                "elapsed_s": state.elapsed_s,
                "epoch": self.epochs_fn(report.step),
                "skipped": report.skipped is not None,
                **report.measured,
            },
        )

    def _on_eval(self) -> float:
        return float(self.world.from_main(self._score() if self.world.is_main else None))

    def _score(self) -> float:
        """Evaluate the weights, and their moving average where there is one; save the better when it is the best."""
        state = self.trainer.state
        scores, loss_of, model = self.evaluate(), self.objective, self.trainer.model
        average = self.trainer.average
        before = math.inf if state.best_loss is None else state.best_loss
        if average is not None and state.step > 0:
            with average.applied(model):
                average_scores = self.evaluate()
                both = {"val_loss_raw": loss_of(scores), "val_loss_average": loss_of(average_scores)}
                if loss_of(average_scores) < min(loss_of(scores), before):
                    self.keep_best(model)
            if loss_of(average_scores) < loss_of(scores):
                scores, before = average_scores, -math.inf
            scores = {**scores, **both}
        self.last_evaluation = scores
        if loss_of(scores) < before:
            self.keep_best(model)
        self.log.metrics(state.step, scores)
        self.log.line(f"step {state.step} | EVALUATION | " + " | ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        if (text := self.sample()) is not None:
            self.log.sample(state.step, text)
        return loss_of(scores)

    def _on_pause(self) -> None:
        step = self.trainer.state.step
        epoch = int(self.epochs_fn(step))
        if self.settings.keep_epochs and step and epoch > int(self.epochs_fn(step - 1)):
            self.save(epoch=epoch)
        if (
            step == 0 or self._checkpoint_is_due()
        ) and not self.trainer.guard.num_skipped_in_row:  # weights that are suspect are not kept
            self.save()
        self._consistent = False

    def _checkpoint_is_due(self) -> bool:
        if self.settings.every is not None:
            return self.trainer.state.step % self.settings.every == 0
        since_s = time.monotonic() - self._saved_s
        is_next = int(self.trainer.progress * _PER_RUN) > int(self._saved_progress * _PER_RUN)
        return since_s >= self.settings.interval or (is_next and self._writing_s <= _WRITING_SHARE * since_s)

    def _eta(self) -> str:
        progress = self.trainer.progress
        if not progress:
            return "-"
        return format_seconds(self.trainer.state.elapsed_s * (1 - progress) / progress)

    # ------------------------------------------------------------ saving and going back

    def save(self, epoch: int | None = None, *, final: bool = False) -> None:
        """Write a checkpoint of this moment, unless there is one; training goes on meanwhile where a copy fits."""
        step = self.trainer.state.step
        if not self.world.is_main or (epoch is None and step == self._saved_step):
            return
        tensors = _prefixed(_OPTIMIZER_PREFIX, flatten_state(self.trainer.optimizer, self.trainer.model))
        if self.trainer.average is not None:
            tensors |= _prefixed(_AVERAGE_PREFIX, self.trainer.average.state())
        tensors |= _prefixed(_TASK_PREFIX, self.trainer.task.state_fn())
        weights = self.stored_fn(self.trainer.model)
        beside = self._room_for_copies([*weights.values(), *tensors.values()]) and not final
        if beside:
            weights, tensors = _copies(weights), _copies(tensors)
        state = TrainingState(step=step, values=copy.deepcopy(self.trainer.values()), tensors=tensors)
        kind, name = ("step", f"step-{step:06d}") if epoch is None else ("epoch", f"epoch-{epoch:03d}-step-{step:06d}")
        keep = self.settings.keep_steps if epoch is None else self.settings.keep_epochs

        def write() -> None:
            began_s = time.monotonic()
            checkpoint.save_checkpoint(self.run_path, name, weights, state)
            checkpoint.prune_checkpoints(self.run_path, kind, keep)
            self._writing_s = time.monotonic() - began_s
            self.log.line(f"step {step} | CHECKPOINT | checkpoints/{name}")

        self._background.do(write)
        if not beside:
            self._background.wait()
        if epoch is None:
            self._note_saved(step)

    def _room_for_copies(self, tensors: Sequence[Tensor]) -> bool:
        """Whether a copy of what is saved is small beside the free memory."""
        return sum(tensor.nbytes for tensor in tensors) < _COPY_SHARE * machine.memory_bytes()[1]

    def restore(self) -> bool:
        """Go to the newest whole checkpoint; False when there is none."""
        self._background.wait()
        self.world.wait()  # until the first process has written it
        found = checkpoint.load_checkpoint(self.run_path, lambda text: self.log.line(text, level="WARN"))
        self.world.wait()  # until all have read it, and cleared up: only then is anything written
        if found is None:
            return False
        weights, state = found
        trainer = self.trainer
        device = trainer.device
        if weights.keys() != self.stored_fn(trainer.model).keys():
            raise CheckpointError(f"the checkpoints of {self.run_path} hold other weights than the run has")
        with torch.no_grad():
            there = {name: tensor.to(device) for name, tensor in weights.items()}
            trainer.model.load_state_dict(there, strict=False)
        restore_state(trainer.optimizer, trainer.model, _without_prefix(_OPTIMIZER_PREFIX, state.tensors))
        if trainer.average is not None:
            trainer.average.restore(_without_prefix(_AVERAGE_PREFIX, state.tensors))
        trainer.task.restore_fn(_without_prefix(_TASK_PREFIX, state.tensors))
        trainer.restore(state.values)
        self.log.go_back_to(state.step)
        self._note_saved(state.step)
        return True

    def _note_saved(self, step: int) -> None:
        self._saved_step, self._saved_s, self._saved_progress = step, time.monotonic(), self.trainer.progress

    def _drop_suspect_checkpoint(self) -> None:
        if self.world.is_main:
            self._drop_if_suspect()

    def _drop_if_suspect(self) -> None:
        """Going back to a checkpoint a second time means that it was bad already: the one before is better."""
        folders = checkpoint.checkpoint_folders(self.run_path)
        if len(folders) > 1 and folders[-1].name == self._went_back_to:
            shutil.rmtree(folders.pop())
        self._went_back_to = folders[-1].name if folders else ""

    def _roll_back(self) -> None:
        trainer = self.trainer
        num_rollbacks, rate_scale = trainer.state.num_rollbacks + 1, trainer.state.rate_scale / 2
        num_skipped, bad_step = trainer.guard.num_skipped, trainer.state.step
        if num_rollbacks > trainer.guard_settings.max_rollbacks:
            raise TrainingError(
                f"training diverged at step {bad_step} and again after {num_rollbacks - 1} roll-backs. "
                "Lower the learning rate, or look at the data around that step"
            )
        self._drop_suspect_checkpoint()
        if not self.restore():
            raise TrainingError(f"training diverged at step {bad_step}, and there is no whole checkpoint to go back to")
        trainer.state.num_rollbacks, trainer.state.rate_scale = num_rollbacks, rate_scale
        trainer.guard.num_skipped, trainer.guard.num_skipped_in_row = num_skipped, 0
        self._saved_step = -1
        self.log.line(
            f"step {bad_step} | ROLLED BACK | to step {trainer.state.step}, learning rate × {rate_scale:g}",
            level="WARN",
        )


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# ---------------------------------------------------------------- the machine around it


def memory_in_use_mb(device: torch.device) -> float:
    """Memory of this process on CPU, or the most that torch has held on a GPU; in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return float(psutil.Process().memory_info().rss) / 1e6


def format_seconds(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
