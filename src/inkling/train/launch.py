"""From settings to a finished run: choose, build, probe, train, evaluate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

import inkling
from inkling import checkpoint, files, machine, models
from inkling.checkpoint import RunRecord
from inkling.data.loader import Batch, sequential_windows
from inkling.data.shards import Dataset, manifest_sha256
from inkling.errors import CheckpointError, ConfigError
from inkling.optim._ema import WeightAverage
from inkling.tensor_files import checksum, read_tensors
from inkling.tokenizer import Tokenizer
from inkling.train import choose, forecast
from inkling.train.cooling import Cooler, thermometer
from inkling.train.drift import ThreadWatch
from inkling.train.log import RunLog, SilentLog, plot_losses
from inkling.train.loop import Limits, StepReport, Trainer
from inkling.train.precision import PrecisionName, autocast
from inkling.train.pretrain import pretraining_task
from inkling.train.probe import peak_flops, threads
from inkling.train.session import Session
from inkling.train.settings import TrainSettings
from inkling.train.world import ALONE, World

_NICENESS = 10
MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 16_384, 262_144
"""Validation tokens of an evaluation during training: fewer are too noisy to find the best step, more are wasted."""


class Reporter(Protocol):
    """Shows progress: `inkling.progress.LiveProgress`."""

    def __call__(self, phase: str, done: float, total: float | None = None, detail: str = "") -> None: ...

    def note(self, line: str) -> None: ...


EvaluateFn = Callable[[models.LanguageModel, list[Batch]], dict[str, float]]
"""(model, batches) → at least `val_loss` in nats per token."""
DifficultyFn = Callable[[Dataset, Tokenizer], float]
DescribeFn = Callable[[models.ModelConfig, Tokenizer], str]
"""(shape, tokenizer) → a line about what can be done with such a model."""
SampleFn = Callable[[models.LanguageModel, Tokenizer, str, int], str]
TaskFn = Callable[[models.LanguageModel, Tokenizer], dict[str, float]]
"""(model, tokenizer, prompt, number of tokens) → text."""


class PretrainingRun:
    """One pretraining run, new or resumed.

    Args:
        run: Run directory.
        settings: Resolved settings; those of the record for a resumed run.
        record: `run.json` of a run to resume, or None for a new one.
        evaluator: Makes the function that scores the model on batches, for a tokenizer.
        sample_fn: Lets the model write.
        task_fn: Scores the model in tasks, which stand beside its other scores; None: in none.
        report: Shows progress.
        describe: Says, before the run, where such a model can be exported to.
        difficulty: Bits per byte of a byte n-gram model on the validation text, from which a loss can be expected.
        world: The processes that train together.
    """

    def __init__(
        self,
        run: Path,
        settings: TrainSettings,
        record: RunRecord | None,
        *,
        evaluator: Callable[[Tokenizer], EvaluateFn],
        sample_fn: SampleFn,
        report: Reporter,
        task_fn: TaskFn | None = None,
        difficulty: DifficultyFn | None = None,
        describe: DescribeFn | None = None,
        world: World = ALONE,
    ) -> None:
        assert settings.data is not None
        self.run = run
        self.settings = settings
        self.world = world
        self.report = report
        self.sample_fn = sample_fn
        self.task_fn = task_fn
        self._scores: dict[str, float] = {}
        self._batches_of_sources: dict[str, list[Batch]] = {}
        self.device = pick_device(settings.machine.device, world)
        self.dataset = Dataset.open(settings.data)
        self.tokenizer = Tokenizer.load(settings.data)
        self.dataset.check_tokenizer(self.tokenizer)
        self.evaluate_fn = evaluator(self.tokenizer)
        self.report.note(f"{'new run' if record is None else 'resuming'} {run}")
        if record is not None and record.data["manifest_sha256"] != manifest_sha256(settings.data):
            raise CheckpointError(
                f"the data folder {settings.data} has changed since {run} began; start a new run with --no-resume"
            )
        self.choices: dict[str, Any] = record.choices if record is not None else self._choose(difficulty)
        self.windows = choose.training_windows(settings, self.dataset, self.choices["batch_size"])
        self._say_mixture()
        self._watch: ThreadWatch | None = None
        cool = settings.machine.cool
        self._cooler = Cooler(cool, thermometer(self.device)) if cool is not None else None
        if settings.machine.nice:
            os.nice(max(0, _NICENESS - os.nice(0)))
        if record is None and describe is not None:
            self.report.note(describe(models.read_config(self.choices["model_config"]), self.tokenizer))
        if record is None:
            self.choices |= self.world.from_main(self._time() if world.is_main else None)
        self.model = choose.build_model(settings, self.choices, self.device)
        if record is None and settings.start_from is not None:
            weights, _ = read_tensors(settings.start_from / checkpoint.WEIGHTS_FILE, verify=False)
            with torch.no_grad():
                self.model.load_state_dict({name: tensor.to(self.device) for name, tensor in weights.items()})
        self._is_new = record is None
        self.record = record if record is not None else self._new_record()

    def _choose(self, difficulty: DifficultyFn | None) -> dict[str, Any]:
        """By the first process, for all."""
        chosen: dict[str, Any] = {}
        if self.world.is_main:
            from_nothing = self.settings.start_from is None  # which is what the law of losses is about
            ngram = difficulty(self.dataset, self.tokenizer) if difficulty is not None and from_nothing else None
            chosen = choose.choose(self.settings, self.dataset, self.device, self.report.note, ngram)
            chosen["ngram"] = ngram
        return dict(self.world.from_main(chosen))

    def _time(self) -> dict[str, Any]:
        """What only the clock can tell: how to compute a step, and from some steps how long the run will take."""
        settings, say = self.settings, self.report.note
        model = choose.build_model(settings, self.choices, self.device)
        timed = choose.time_choices(settings, self.choices, model, self.windows, say, self.world)
        del model  # the forecast builds another one
        with threads(timed["num_threads"]), deterministic():
            expected = forecast.forecast(
                settings,
                self.dataset,
                {**self.choices, **timed},
                self.windows,
                self.device,
                evaluation_seconds=lambda model: self._evaluation_seconds(model, timed["precision"]),
                ngram=self.choices["ngram"],
                ratios=self._earlier_ratios(),
                world=self.world,
            )
        say(f"  {len(self.choices['reasons']) + 2}. {expected.sentence()}")
        return {**timed, "forecast": expected.as_dict()}

    def _earlier_ratios(self) -> list[float]:
        """What finished runs beside this one, on the same data and architecture, reached for what the law had said."""
        assert self.settings.data is not None
        data, found = manifest_sha256(self.settings.data), []
        for path in self.run.parent.glob(f"*/{checkpoint.RUN_FILE}"):
            try:
                record = checkpoint.read_run(path.parent)
            except CheckpointError:
                continue
            by_law = (record.choices.get("forecast") or {}).get("by_law")
            same = record.data.get("manifest_sha256") == data and record.settings.get("arch") == self.settings.arch
            if same and by_law and record.status == "finished" and "validation" in record.results:
                found.append(record.results["validation"]["val_bits_per_byte"] / by_law)
        return found

    def _evaluation_seconds(self, model: models.LanguageModel, precision: PrecisionName) -> float:
        """Of one evaluation and its sample during training, from two of its batches."""
        batches = self._validation_batches(self.settings.log.eval_tokens or self._affordable_eval_tokens(), 16)
        some = batches[:2]
        with autocast(self.device, precision):
            self.evaluate_fn(model, some[:1])
            started_s = time.perf_counter()
            self.evaluate_fn(model, some)
        seconds = (time.perf_counter() - started_s) * len(batches) / max(1, len(some))
        started_s = time.perf_counter()
        log = self.settings.log
        if log.samples:
            self.sample_fn(model, self.tokenizer, log.prompt, log.sample_tokens)
        return seconds + time.perf_counter() - started_s

    def _say_mixture(self) -> None:
        if len(self.dataset.parts) > 1:
            num_steps = self.choices["expected_tokens"] // (self.choices["batch_size"] * self.settings.context)
            passes = self.windows.passes(num_steps)
            each = (f"{p.name} {p.share:.1%}, {n:.2f} passes" for p, n in zip(self.dataset.parts, passes, strict=True))
            self.report.note(f"mixture: {'; '.join(each)}")

    # ------------------------------------------------------------ the run directory

    def _new_record(self) -> RunRecord:
        settings = self.settings
        assert settings.data is not None
        return RunRecord(
            settings=settings.model_dump(mode="json"),
            choices=self.choices,
            versions={"inkling": inkling.__version__, "torch": torch.__version__, "python": machine.python_version()},
            hardware=machine.summary(),
            data={
                "folder": str(settings.data.resolve()),
                "manifest_sha256": manifest_sha256(settings.data),
                **self._beginning(),
            },
            tokenizer_sha256=self.tokenizer.sha256,
            num_parameters=self.choices["num_parameters"],
        )

    def _beginning(self) -> dict[str, str]:
        """The run that this one begins with, if any, for its lineage."""
        parent = self.settings.start_from
        if parent is None:
            return {}
        found = checksum(parent / checkpoint.WEIGHTS_FILE)
        return {"start_from": str(parent.resolve()), "start_from_sha256": found}

    def _create_run_folder(self) -> None:
        with files.new_folder(self.run) as folder:
            checkpoint.save_model(folder, self.model, self.tokenizer)
            checkpoint.write_run(folder, self.record)

    # ------------------------------------------------------------ training

    def train(self) -> RunRecord:
        """Train to the end or to an interruption; returns the record, whose status says which."""
        if self._is_new and self.world.is_main:
            self._create_run_folder()
        with threads(self.choices["num_threads"]), deterministic():
            session = self._session()
            self._watch = self._watch_threads()
            resumed = session.restore()
            log = session.log
            log.session_starts(
                f"{self.run.name} | inkling {inkling.__version__} | torch {torch.__version__} | "
                f"{'resumed' if resumed else 'new'} at step {session.trainer.state.step}"
            )
            expected = self.choices["forecast"] or {"sentence": "no forecast: begun by an older Inkling"}
            for reason in [*self.choices["reasons"], self.choices["timing"], expected["sentence"]]:
                log.line(reason)
            try:
                stop = session.work()
                if stop != "signal" and self.world.is_main:
                    self._finish_or_leave_unfinished(session)
                self.world.wait()  # leaving a group that others still use ends them
            finally:
                log.close()
        return self.record

    def _keep_smaller_micro_batch(self, micro_batch: int) -> None:
        """Said, and kept for when the run is resumed."""
        self.report.note(f"memory did not suffice: micro-batches of {micro_batch} from now on, more of them a step")
        self.record.choices["micro_batch"] = micro_batch
        checkpoint.write_run(self.run, self.record)

    def _session(self) -> Session:
        settings, choices = self.settings, self.choices
        optimizer = choose.build_optimizer(settings, choices, self.model)
        task = pretraining_task(
            self.windows,
            batch_size=choices["batch_size"],
            micro_batch=choices["micro_batch"],
            context=settings.context,
            seed=settings.seed,
            device=self.device,
            world=self.world,
            compile_loss=choices["compile"],
            on_halved=self._keep_smaller_micro_batch,
        )
        loop = settings.loop
        if loop.eval_every is None and choices["steps"] is not None:
            loop = loop.model_copy(update={"eval_every": max(1, choices["steps"] // 20)})
        trainer = Trainer(
            self.model,
            optimizer,
            task,
            Limits(choices["steps"], settings.time),
            loop,
            settings.schedule,
            settings.guard,
            precision=choices["precision"],
            average=WeightAverage(self.model, settings.average) if settings.average.decay else None,
            world=self.world,
        )
        self._batches_of_sources = self._source_batches()
        batches = self._validation_batches(
            settings.log.eval_tokens or self._affordable_eval_tokens(), self._evaluation_rows()
        )
        return Session(
            self.run,
            self.record,
            trainer,
            settings.checkpoint,
            RunLog(self.run, wandb_project=settings.log.wandb) if self.world.is_main else SilentLog(),
            log_every=loop.log_every,
            flops_per_token=models.cost(models.without_memory(self.model.config)).training_flops,
            peak_flops=choices["peak_flops"] or self._peak_flops(),
            steps_per_epoch=self.windows.windows_per_epoch / choices["batch_size"],
            evaluate=lambda: self._evaluate(batches),
            sample=self._sample,
            on_progress=self._show,
        )

    def _peak_flops(self) -> float:
        """Measured anew, for a run whose record lacks it."""
        number, precision = self.choices["num_threads"], self.choices["precision"]
        return peak_flops(self.device, precision, number) * self.world.size

    def _watch_threads(self) -> ThreadWatch | None:
        """For one process on a CPU whose number of threads the user leaves open."""
        if self.device.type != "cpu" or self.settings.machine.threads is not None or self.world.size > 1:
            return None
        return ThreadWatch(self.choices["num_threads"], torch.set_num_threads, self._keep_threads)

    def _keep_threads(self, number: int, reason: str) -> None:
        """Said, and kept for when the run is resumed."""
        self.report.note(reason)
        self.record.choices["num_threads"] = number
        checkpoint.write_run(self.run, self.record)

    def _evaluation_rows(self) -> int:
        return max(1, min(16, int(self.choices["micro_batch"])))

    def _affordable_eval_tokens(self) -> int:
        """So many that twenty evaluations, a third as dear as training per token, cost about a twentieth of the run."""
        return min(MAX_EVAL_TOKENS, max(MIN_EVAL_TOKENS, int(self.choices["expected_tokens"] / 120)))

    def _validation_batches(self, max_tokens: int | None, rows: int) -> list[Batch]:
        """Batches over the validation split: all of it, or portions evenly spread over it."""
        context = self.settings.context
        batches = list(sequential_windows(self.dataset.validation, context, rows, self.dataset.eot_id))
        if max_tokens is None:
            return batches
        every = max(1, -(-self.dataset.validation.num_tokens // max_tokens))
        return batches[::every]

    def _source_batches(self) -> dict[str, list[Batch]]:
        """Of a mixture, some validation batches of each source."""
        parts = self.dataset.parts
        if len(parts) < 2:
            return {}
        context, rows, eot_id = self.settings.context, self._evaluation_rows(), self.dataset.eot_id
        wanted = max(1, MIN_EVAL_TOKENS // (context * rows))
        batches = {part.name: list(sequential_windows(part.validation, context, rows, eot_id)) for part in parts}
        return {name: some[:: max(1, -(-len(some) // wanted))] for name, some in batches.items()}

    def _evaluate(self, batches: list[Batch]) -> dict[str, float]:
        """Scores of the model as it is, in the precision it trains in: the last evaluation is in fp32."""
        with autocast(self.device, self.choices["precision"]):
            self._scores = self.evaluate_fn(self.model, batches)
            for name, some in self._batches_of_sources.items():
                self._scores[f"val_bits_per_byte/{name}"] = self.evaluate_fn(self.model, some)["val_bits_per_byte"]
        if self.task_fn is not None:
            self._scores = {**self._scores, **self.task_fn(self.model, self.tokenizer)}
        return self._scores

    def _sample(self) -> str | None:
        log = self.settings.log
        return self.sample_fn(self.model, self.tokenizer, log.prompt, log.sample_tokens) if log.samples else None

    def _show(self, trainer: Trainer, report: StepReport) -> None:
        if self._watch is not None:
            self._watch.after_step(trainer.task.tokens_per_step / report.tokens_per_s)
        if self._cooler is not None:
            self._cooler.after_step()
        detail = f"loss {report.loss_average:.4f}"
        if self._scores:  # none yet in a run that was just resumed
            detail += f"  val {self._scores['val_loss']:.4f}, {self._scores['val_bits_per_byte']:.3f} bits/byte"
        detail += f"  {report.tokens_per_s:,.0f} tokens/s"
        self.report("training", trainer.progress, 1.0, detail)

    # ------------------------------------------------------------ after training

    def _finish_or_leave_unfinished(self, session: Session) -> None:
        """Stopped here, a run is not finished: resuming it comes straight back to this point."""
        try:
            self._finish(session)
        except BaseException:
            self.record.status = "interrupted"
            checkpoint.write_run(self.run, self.record)
            raise

    def _finish(self, session: Session) -> None:
        """Score the best weights over the whole validation split and draw the curve."""
        weights, _ = read_tensors(self.run / checkpoint.WEIGHTS_FILE, verify=True)
        with torch.no_grad():
            self.model.load_state_dict({name: tensor.to(self.device) for name, tensor in weights.items()})
        scores = self.evaluate_fn(self.model, self._validation_batches(None, self._evaluation_rows()))
        state = session.trainer.state
        self.record.results |= {"validation": scores, "best_step": state.best_step}
        title = f"{self.run.name}: {self.settings.arch}, {self.record.num_parameters / 1e6:.1f} M parameters"
        plot_losses(self.run, title)
        checkpoint.write_run(self.run, self.record)


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
