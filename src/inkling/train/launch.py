"""From settings to a finished run: choose, build, probe, train, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

import inkling
from inkling import checkpoint, files, machine, models, optim
from inkling.checkpoint import RunRecord
from inkling.config import Section
from inkling.data.loader import Batch, PackedWindows, sequential_windows
from inkling.data.shards import Dataset, manifest_sha256
from inkling.errors import CheckpointError, ConfigError
from inkling.optim import muon
from inkling.optim._ema import WeightAverage
from inkling.optim._groups import parameter_groups
from inkling.tokenizer import Tokenizer
from inkling.train import defaults
from inkling.train.log import RunLog, plot_losses
from inkling.train.loop import Limits, StepReport, Trainer
from inkling.train.precision import autocast
from inkling.train.pretrain import next_token_loss, pretraining_task, to_micro_batch
from inkling.train.probe import Choices, Probe, threads
from inkling.train.recompute import recompute_blocks
from inkling.train.session import Session
from inkling.train.settings import TrainSettings

MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 16_384, 262_144
"""Validation tokens of an evaluation during training: fewer are too noisy to find the best step, more are wasted."""


class Reporter(Protocol):
    """Shows progress: `inkling.progress.LiveProgress`."""

    def __call__(self, phase: str, done: float, total: float | None = None, detail: str = "") -> None: ...

    def note(self, line: str) -> None: ...


EvaluateFn = Callable[[models.LanguageModel, list[Batch]], dict[str, float]]
"""(model, batches) → at least `val_loss` in nats per token."""
SampleFn = Callable[[models.LanguageModel, Tokenizer, str, int], str]
"""(model, tokenizer, prompt, number of tokens) → text."""


class PretrainingRun:
    """One pretraining run, new or resumed.

    Args:
        run: Run directory.
        settings: Resolved settings; those of the record for a resumed run.
        record: `run.json` of a run to resume, or None for a new one.
        evaluator: Makes the function that scores the model on batches, for a tokenizer.
        sample_fn: Lets the model write.
        report: Shows progress.
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
    ) -> None:
        assert settings.data is not None
        self.run = run
        self.settings = settings
        self.report = report
        self.sample_fn = sample_fn
        self._scores: dict[str, float] = {}
        self.device = pick_device(settings.machine.device)
        self.dataset = Dataset.open(settings.data)
        self.tokenizer = Tokenizer.load(settings.data)
        self.dataset.check_tokenizer(self.tokenizer)
        self.evaluate_fn = evaluator(self.tokenizer)
        self.report.note(f"{'new run' if record is None else 'resuming'} {run}")
        self.choices: dict[str, Any] = record.choices if record is not None else self._choose()
        self.model = self._build_model()
        self.windows = PackedWindows(
            [(part.train, part.share) for part in self.dataset.parts],
            context=settings.context,
            batch_size=self.choices["batch_size"],
            seed=settings.seed,
            eot_id=self.dataset.eot_id,
            stride=settings.stride,
        )
        self._say_mixture()
        self.record = record if record is not None else self._create_run_folder()
        if record is not None and record.data["manifest_sha256"] != manifest_sha256(settings.data):
            raise CheckpointError(
                f"the data folder {settings.data} has changed since {run} began; start a new run with --no-resume"
            )

    # ------------------------------------------------------------ choices

    def _choose(self) -> dict[str, Any]:
        """What the settings leave open, apart from what is timed; each choice is told with its reason."""
        settings, dataset = self.settings, self.dataset
        architecture = models.load(settings.arch)
        size, size_reason = defaults.choose_size(settings.size, list(architecture.SIZES), dataset.train.num_tokens)
        model_config = {
            **architecture.SIZES[size],
            **settings.model.model_dump(exclude={"dropout"}, exclude_none=True),
            "model_type": settings.arch,
            "vocab_size": -(-dataset.vocab_size // settings.vocab_multiple) * settings.vocab_multiple,
            "max_position_embeddings": settings.context,
        }
        config = architecture.Config.from_dict(model_config)
        num_parameters = models.num_parameters(config)
        matrices = _block_matrices(config)
        horizon = defaults.choose_horizon(
            num_parameters=num_parameters,
            num_tokens=dataset.train.num_tokens,
            context=settings.context,
            batch_size=settings.batch_size,
            steps=settings.steps,
            time_s=settings.time,
            tokens_per_s=self._plain_speed(config) if settings.time is not None else None,
            muon_share=lambda tokens: muon.flops_share(matrices, tokens),
        )
        dropout, dropout_reason = defaults.choose_dropout(settings.model.dropout, horizon.passes)
        share = muon.flops_share(matrices, horizon.batch_size * settings.context)
        optimizer, optimizer_reason = defaults.choose_optimizer(settings.optimizer, share)
        reasons = [
            f"{size_reason}: {num_parameters:,} parameters ({settings.arch}, {dataset.vocab_size:,} tokens)",
            *horizon.reasons,
            dropout_reason,
            optimizer_reason,
        ]
        for number, reason in enumerate(reasons, start=1):
            self.report.note(f"  {number}. {reason}")
        return {
            "model_config": model_config,
            "num_parameters": num_parameters,
            "dropout": dropout,
            "batch_size": horizon.batch_size,
            "steps": horizon.steps,
            "expected_tokens": horizon.tokens,
            "optimizer": optimizer,
            "reasons": reasons,
        }

    def _say_mixture(self) -> None:
        if len(self.dataset.parts) > 1:
            num_steps = self.choices["expected_tokens"] // (self.choices["batch_size"] * self.settings.context)
            passes = self.windows.passes(num_steps)
            each = (f"{p.name} {p.share:.1%}, {n:.2f} passes" for p, n in zip(self.dataset.parts, passes, strict=True))
            self.report.note(f"mixture: {'; '.join(each)}")

    def _plain_speed(self, config: models.ModelConfig) -> float:
        """Tokens per second of forward and backward on a few sequences, before anything is chosen."""
        model = models.load(self.settings.arch).Model(config).to(self.device)
        count = max(1, min(8, self.dataset.train.num_tokens // self.settings.context))
        windows = PackedWindows(
            [(self.dataset.train, 1.0)],
            context=self.settings.context,
            batch_size=count,
            seed=0,
            eot_id=self.dataset.eot_id,
        )
        probe = Probe(model, next_token_loss, to_micro_batch(windows.batch(0), slice(None), self.device))
        start = Choices("fp32", self.settings.machine.threads or machine.usable_cores(), count)
        free = {"precision", "num_threads"} if self.device.type == "cpu" else {"precision"}
        return probe.choose(start, free=free, expected_tokens=0)[0].tokens_per_s

    def _build_model(self) -> models.LanguageModel:
        architecture = models.load(self.settings.arch)
        config = architecture.Config.from_dict(self.choices["model_config"])
        model = architecture.Model(config, dropout=self.choices["dropout"])
        model.init_weights(torch.Generator().manual_seed(self.settings.seed))
        model.to(self.device)
        return recompute_blocks(model) if self.settings.machine.recompute else model

    def _probe(self) -> dict[str, Any]:
        """Time the candidates on the first step's sequences."""
        wanted, batch_size = self.settings.machine, self.choices["batch_size"]
        batch = self.windows.batch(0)
        free = {name for name in ("precision", "compile") if getattr(wanted, name) == "auto"}
        free |= {"num_threads"} if wanted.threads is None else set()
        free |= {"micro_batch"} if wanted.micro_batch is None else set()
        start = Choices(
            precision="fp32" if wanted.precision == "auto" else wanted.precision,
            num_threads=wanted.threads or machine.usable_cores(),
            micro_batch=wanted.micro_batch or self._largest_micro_batch(batch_size),
            compile=wanted.compile == "yes",
        )
        if batch_size % start.micro_batch:
            raise ConfigError(
                f"machine.micro_batch {start.micro_batch} must divide the batch of {batch_size} sequences"
            )
        probe = Probe(self.model.train(), next_token_loss, to_micro_batch(batch, slice(None), self.device))
        chosen, reason = probe.choose(start, free=free, expected_tokens=self.choices["expected_tokens"])
        self.report.note(f"  {len(self.choices['reasons']) + 1}. timed on this machine: {reason}")
        return {**chosen.as_dict(), "timing": reason}

    def _largest_micro_batch(self, batch_size: int) -> int:
        """The largest power-of-two part of the batch whose logits stay below 512 MB."""
        size = batch_size
        while size % 2 == 0 and size * self.settings.context * self.dataset.vocab_size * 4 > 512e6:
            size //= 2
        return size

    # ------------------------------------------------------------ the run directory

    def _create_run_folder(self) -> RunRecord:
        settings = self.settings
        assert settings.data is not None
        self.choices |= self._probe()
        record = RunRecord(
            settings=settings.model_dump(mode="json"),
            choices=self.choices,
            versions={"inkling": inkling.__version__, "torch": torch.__version__, "python": machine.python_version()},
            hardware=machine.summary(),
            data={"folder": str(settings.data.resolve()), "manifest_sha256": manifest_sha256(settings.data)},
            tokenizer_sha256=self.tokenizer.sha256,
            num_parameters=self.choices["num_parameters"],
        )
        with files.new_folder(self.run) as folder:
            checkpoint.save_model(folder, self.model, self.tokenizer)
            checkpoint.write_run(folder, record)
        return record

    # ------------------------------------------------------------ training

    def train(self) -> RunRecord:
        """Train to the end or to an interruption; returns the record, whose status says which."""
        with threads(self.choices["num_threads"]), deterministic():
            session = self._session()
            resumed = session.restore()
            log = session.log
            log.session_starts(
                f"{self.run.name} | inkling {inkling.__version__} | torch {torch.__version__} | "
                f"{'resumed' if resumed else 'new'} at step {session.trainer.state.step}"
            )
            for reason in [*self.choices["reasons"], self.choices["timing"]]:
                log.line(reason)
            try:
                stop = session.work()
                if stop != "signal":
                    self._finish_or_leave_unfinished(session)
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
        optimizer_module = optim.load(choices["optimizer"])
        optimizer = optimizer_module.build(parameter_groups(self.model), self._optimizer_config())
        task = pretraining_task(
            self.windows,
            batch_size=choices["batch_size"],
            micro_batch=choices["micro_batch"],
            context=settings.context,
            seed=settings.seed,
            device=self.device,
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
        )
        batches = self._validation_batches(settings.log.eval_tokens or self._affordable_eval_tokens())
        return Session(
            self.run,
            self.record,
            trainer,
            settings.checkpoint,
            RunLog(self.run, tensorboard=settings.log.tensorboard),
            log_every=loop.log_every,
            steps_per_epoch=self.windows.windows_per_epoch / choices["batch_size"],
            evaluate=lambda: self._evaluate(batches),
            sample=self._sample,
            on_progress=self._show,
        )

    def _optimizer_config(self) -> Section:
        """The settings of the optimizer, what they leave open filled in."""
        config: Section = getattr(self.settings, self.choices["optimizer"])
        if isinstance(config, muon.Config) and config.orthogonalize_in == "auto":
            precision = "fp32" if self.choices["precision"] == "fp32" else "bf16"
            return config.model_copy(update={"orthogonalize_in": precision})
        return config

    def _affordable_eval_tokens(self) -> int:
        """So many that twenty evaluations, a third as dear as training per token, cost about a twentieth of the run."""
        return min(MAX_EVAL_TOKENS, max(MIN_EVAL_TOKENS, int(self.choices["expected_tokens"] / 120)))

    def _validation_batches(self, max_tokens: int | None) -> list[Batch]:
        """Batches over the validation split: all of it, or portions evenly spread over it."""
        context, micro_batch = self.settings.context, max(1, min(16, self.choices["micro_batch"]))
        batches = list(sequential_windows(self.dataset.validation, context, micro_batch, self.dataset.eot_id))
        if max_tokens is None:
            return batches
        every = max(1, -(-self.dataset.validation.num_tokens // max_tokens))
        return batches[::every]

    def _evaluate(self, batches: list[Batch]) -> dict[str, float]:
        """Scores of the model as it is, in the precision it trains in: the last evaluation is in fp32."""
        with autocast(self.device, self.choices["precision"]):
            self._scores = self.evaluate_fn(self.model, batches)
        return self._scores

    def _sample(self) -> str | None:
        log = self.settings.log
        return self.sample_fn(self.model, self.tokenizer, log.prompt, log.sample_tokens) if log.samples else None

    def _show(self, trainer: Trainer, report: StepReport) -> None:
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
        weights, _ = checkpoint.read_tensors(self.run / checkpoint.WEIGHTS_FILE, verify=True)
        with torch.no_grad():
            self.model.load_state_dict({name: tensor.to(self.device) for name, tensor in weights.items()})
        scores = self.evaluate_fn(self.model, self._validation_batches(None))
        state = session.trainer.state
        self.record.results |= {"validation": scores, "best_step": state.best_step}
        title = f"{self.run.name}: {self.settings.arch}, {self.record.num_parameters / 1e6:.1f} M parameters"
        plot_losses(self.run, title)
        checkpoint.write_run(self.run, self.record)


def _block_matrices(config: models.ModelConfig) -> list[tuple[int, ...]]:
    """Shapes of the matrices that Muon would update. Allocates nothing."""
    with torch.device("meta"):
        model = models.load(config.model_type).Model(config)
    return [tuple(p.shape) for group in parameter_groups(model) if group.role == "matrices" for p in group.parameters]


def pick_device(name: str) -> torch.device:
    """The device to compute on; `auto` takes CUDA, else MPS, else the CPU. Raises ConfigError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
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
