"""What every stage's run has in common: its folder, its work, what is shown and kept meanwhile."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

import inkling
from inkling import checkpoint, files, machine, models
from inkling.checkpoint import RunRecord
from inkling.errors import ConfigError
from inkling.optim._ema import AverageSettings, WeightAverage
from inkling.optim._schedule import ScheduleSettings
from inkling.tensor_files import checksum
from inkling.tokenizer import Tokenizer
from inkling.train.cooling import Cooler, thermometer
from inkling.train.drift import ThreadWatch
from inkling.train.guard import GuardSettings
from inkling.train.log import RunLog, SilentLog
from inkling.train.loop import Limits, LoopSettings, StepReport, Task, Trainer
from inkling.train.probe import peak_flops, threads
from inkling.train.session import CheckpointSettings, Session
from inkling.train.settings import LogSettings, MachineSettings
from inkling.train.world import ALONE, World

_NICENESS = 10

SampleFn = Callable[[models.LanguageModel, Tokenizer, str | list[int], int], str]
"""(model, tokenizer, prompt as text or tokens, number of tokens) → text."""
TaskFn = Callable[[models.LanguageModel, Tokenizer], dict[str, float]]
"""(model, tokenizer) → scores, by name."""
DescribeFn = Callable[[models.ModelConfig, Tokenizer], str]
"""(shape, tokenizer) → a line about what can be done with such a model."""


class Reporter(Protocol):
    """Shows progress: `inkling.progress.LiveProgress`."""

    def __call__(self, phase: str, done: float, total: float | None = None, detail: str = "") -> None: ...

    def note(self, line: str) -> None: ...


class StageSettings(Protocol):
    """Settings that every stage has."""

    seed: int
    steps: int | None
    time: float | None
    schedule: ScheduleSettings
    average: AverageSettings
    loop: LoopSettings
    guard: GuardSettings
    checkpoint: CheckpointSettings
    machine: MachineSettings
    log: LogSettings

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """JSON-able form."""
        ...


class Run(ABC):
    """A run of one stage, new or resumed. A stage sets `model`, `tokenizer`, `choices` and `record` when it begins.

    Attributes:
        run: Run directory.
        choices: What was derived or timed; `run.json` keeps it.
        record: Content of `run.json`.
    """

    model: models.LanguageModel
    tokenizer: Tokenizer
    choices: dict[str, Any]
    record: RunRecord

    def __init__(self, run: Path, settings: StageSettings, *, is_new: bool, report: Reporter, world: World) -> None:
        self.run = run
        self.world = world
        self.report = report
        self.device = pick_device(settings.machine.device, world)
        machine.keep_freed_memory()
        self._stage_settings = settings
        self._is_new = is_new
        self._scores: dict[str, float] = {}
        self._watch: ThreadWatch | None = None
        cool = settings.machine.cool
        self._cooler = Cooler(cool, thermometer(self.device)) if cool is not None else None
        if settings.machine.nice:
            os.nice(max(0, _NICENESS - os.nice(0)))

    def _say_what_begins(self) -> None:
        self.report.note(f"{'new run' if self._is_new else 'resuming'} {self.run}")

    # ------------------------------------------------------------ what a stage supplies

    @abstractmethod
    def _task(self) -> Task:
        """Batches and loss."""

    @abstractmethod
    def _build_optimizer(self) -> torch.optim.Optimizer: ...

    @abstractmethod
    def _session(self, trainer: Trainer, log: SilentLog) -> Session: ...

    @abstractmethod
    def _finish(self, session: Session) -> None:
        """Score the best weights, and write down what came out."""

    # ------------------------------------------------------------ the run directory

    def _new_record(self, data: dict[str, Any]) -> RunRecord:
        return RunRecord(
            settings=self._stage_settings.model_dump(mode="json"),
            choices=self.choices,
            versions={"inkling": inkling.__version__, "torch": torch.__version__, "python": machine.python_version()},
            hardware=machine.summary(),
            data=data,
            tokenizer_sha256=self.tokenizer.sha256,
            num_parameters=self.choices["num_parameters"],
        )

    def _create_run_folder(self) -> None:
        with files.new_folder(self.run) as folder:
            checkpoint.save_model(folder, self.model, self.tokenizer)
            checkpoint.write_run(folder, self.record)

    # ------------------------------------------------------------ training

    def train(self) -> RunRecord:
        """Train to the end or to an interruption; returns the record, whose status says which."""
        if self._is_new and self.world.is_main and not (self.run / checkpoint.RUN_FILE).exists():
            self._create_run_folder()
        kernel = self.choices.get("attention", "auto")  # runs begun by an older Inkling have none
        with threads(self.choices["num_threads"]), models.attention_kernel(kernel), deterministic():
            wandb = self._stage_settings.log.wandb
            log = RunLog(self.run, wandb_project=wandb) if self.world.is_main else SilentLog()
            session = self._session(self._trainer(), log)
            self._watch = self._watch_threads()
            resumed = session.restore()
            log.session_starts(
                f"{self.run.name} | inkling {inkling.__version__} | torch {torch.__version__} | "
                f"{'resumed' if resumed else 'new'} at step {session.trainer.state.step}"
            )
            for reason in self._reasons():
                log.line(reason)
            try:
                stop = session.work()
                if stop != "signal" and self.world.is_main:
                    self._finish_or_leave_unfinished(session)
                self.world.wait()  # leaving a group that others still use ends them
            finally:
                log.close()
        return self.record

    def _reasons(self) -> list[str]:
        """Why the run is as it is."""
        return [*self.choices["reasons"], self.choices["timing"]]

    def _trainer(self) -> Trainer:
        settings, choices, loop = self._stage_settings, self.choices, self._stage_settings.loop
        if loop.eval_every is None and choices["steps"] is not None:
            loop = loop.model_copy(update={"eval_every": max(1, choices["steps"] // 20)})
        loop = loop.model_copy(update={"patience": choices.get("patience", loop.patience)})
        decay = choices.get("average_decay", settings.average.decay)
        return Trainer(
            self.model,
            self._build_optimizer(),
            self._task(),
            Limits(choices["steps"], settings.time),
            loop,
            settings.schedule,
            settings.guard,
            precision=choices["precision"],
            average=WeightAverage(self.model, decay) if decay else None,
            world=self.world,
        )

    def _keep_smaller_micro_batch(self, micro_batch: int) -> None:
        """Said, and kept for when the run is resumed."""
        self.report.note(f"memory did not suffice: micro-batches of {micro_batch} from now on, more of them a step")
        self.record.choices["micro_batch"] = micro_batch
        checkpoint.write_run(self.run, self.record)

    def _peak_flops(self) -> float:
        """Of a large matrix product here; measured anew, for a run whose record lacks it."""
        number, precision = self.choices["num_threads"], self.choices["precision"]
        return float(self.choices["peak_flops"] or peak_flops(self.device, precision, number) * self.world.size)

    def _watch_threads(self) -> ThreadWatch | None:
        """For one process on a CPU whose number of threads the user leaves open."""
        if self.device.type != "cpu" or self._stage_settings.machine.threads is not None or self.world.size > 1:
            return None
        return ThreadWatch(self.choices["num_threads"], torch.set_num_threads, self._keep_threads)

    def _keep_threads(self, number: int, reason: str) -> None:
        """Said, and kept for when the run is resumed."""
        self.report.note(reason)
        self.record.choices["num_threads"] = number
        checkpoint.write_run(self.run, self.record)

    def _show(self, trainer: Trainer, report: StepReport) -> None:
        if self._watch is not None:
            self._watch.after_step(report.seconds)
        if self._cooler is not None:
            self._cooler.after_step()
        self.report("training", trainer.progress, 1.0, self._detail(report))

    def _detail(self, report: StepReport) -> str:
        """What is shown beside the progress."""
        return f"loss {report.loss_average:.4f}  {report.tokens_per_s:,.0f} tokens/s"

    # ------------------------------------------------------------ after training

    def _finish_or_leave_unfinished(self, session: Session) -> None:
        """Stopped here, a run is not finished: resuming it comes straight back to this point."""
        try:
            self._finish(session)
        except BaseException:
            self.record.status = "interrupted"
            checkpoint.write_run(self.run, self.record)
            raise


def lineage_of(parent: Path | None) -> dict[str, str]:
    """What a record says of the run that it begins with, if with any."""
    if parent is None:
        return {}
    found = checksum(parent / checkpoint.WEIGHTS_FILE)
    return {"start_from": str(parent.resolve()), "start_from_sha256": found}


def pick_device(name: str, world: World = ALONE) -> torch.device:
    """The device to compute on; `auto` takes CUDA, else MPS, else the CPU. Raises ConfigError when it is not there.

    Of several processes on a machine each takes a GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if world.size > 1 and name == "cuda":
        name = f"cuda:{world.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"machine.device {name!r} cannot be used: {reason}. Run: inkling doctor") from None
    return device


@contextmanager
def deterministic() -> Iterator[None]:
    """Let every operation give the same bits each time, where the device can: an exact resume rests on it."""
    before = torch.are_deterministic_algorithms_enabled()
    fill_before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time, hides nothing
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill_before  # type: ignore[attr-defined]
