"""From settings to a finished run: choose, build, probe, train, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from inkling import checkpoint, machine, models
from inkling.checkpoint import RunRecord
from inkling.data.loader import Batch, sequential_windows
from inkling.data.shards import Dataset, manifest_sha256
from inkling.data.stages import Stage, StagedWindows
from inkling.errors import CheckpointError
from inkling.tensor_files import read_tensors
from inkling.tokenizer import Tokenizer
from inkling.train import choose, forecast, growth, pilot
from inkling.train.log import SilentLog, plot_losses
from inkling.train.loop import StepReport, Task, Trainer
from inkling.train.precision import PrecisionName, autocast
from inkling.train.pretrain import pretraining_task
from inkling.train.probe import threads
from inkling.train.run import DescribeFn, Reporter, Run, SampleFn, TaskFn, deterministic, lineage_of
from inkling.train.session import Session
from inkling.train.settings import TrainSettings
from inkling.train.world import ALONE, World

MIN_EVAL_TOKENS, MAX_EVAL_TOKENS = 16_384, 262_144
"""Validation tokens of an evaluation during training: fewer are too noisy to find the best step, more are wasted. Where
the average of the weights is scored too, each has half of them."""

COLLAPSED_STEPS = 50
"""So many steps without a token, and an expert will hardly get one again."""

EvaluateFn = Callable[[models.LanguageModel, list[Batch]], dict[str, float]]
"""(model, batches) → at least `val_loss` in nats per token."""
DifficultyFn = Callable[[Dataset, Tokenizer], float]


class PretrainingRun(Run):
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
        pilots: How much may be spent on pilots; those that were kept cost nothing.
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
        pilots: pilot.Budget = pilot.NOTHING,
        world: World = ALONE,
    ) -> None:
        assert settings.data is not None
        super().__init__(run, settings, is_new=record is None, report=report, world=world)
        self.settings = settings
        self.sample_fn = sample_fn
        self.task_fn = task_fn
        self._pilot_budget = pilots
        self._batches_of_sources: dict[str, list[Batch]] = {}
        self._steps_left_out = 0
        self.dataset = Dataset.open(settings.data)
        self.tokenizer = Tokenizer.load(settings.data)
        self.dataset.check_tokenizer(self.tokenizer)
        self.dataset.filled("validation")  # by which the best weights are chosen
        self.evaluate_fn = evaluator(self.tokenizer)
        self._say_what_begins()
        if record is not None and record.data["manifest_sha256"] != manifest_sha256(settings.data):
            raise CheckpointError(
                f"the data folder {settings.data} has changed since {run} began; start a new run with --no-resume"
            )
        self.choices: dict[str, Any] = record.choices if record is not None else self._choose(difficulty)
        self.windows = choose.training_windows(settings, self.dataset, self.choices["batch_size"])
        self._say_mixture()
        if record is None and describe is not None:
            self.report.note(describe(models.read_config(self.choices["model_config"]), self.tokenizer))
        if record is None:
            self.choices |= self.world.from_main(self._time() if world.is_main else None)
            machine.give_back_freed_memory()
        self.model = choose.build_model(settings, self.choices, self.device)
        if record is None and settings.start_from is not None:
            weights, _ = read_tensors(settings.start_from / checkpoint.WEIGHTS_FILE, verify=False)
            with torch.no_grad():
                self.model.load_state_dict({name: tensor.to(self.device) for name, tensor in weights.items()})
        data = {
            "folder": str(settings.data.resolve()),
            "manifest_sha256": manifest_sha256(settings.data),
            **lineage_of(settings.start_from),
        }
        self.record = record if record is not None else self._new_record(data)

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
        machine.give_back_freed_memory()
        with threads(timed["num_threads"]), models.attention_kernel(timed["attention"]), deterministic():
            expected = forecast.forecast(
                settings,
                self.dataset,
                {**self.choices, **timed},
                self.windows,
                self.device,
                evaluation_seconds=lambda model: self._evaluation_seconds(model, timed["precision"]),
                ngram=self.choices["ngram"],
                ratios=self._earlier_ratios(),
                pilots_fn=lambda steps, step_s: self._pilots({**self.choices, **timed}, steps, step_s),
                world=self.world,
            )
        say(f"  {len(self.choices['reasons']) + 2}. {expected.sentence()}")
        stages = growth.stages_of(
            settings.growth,
            context=settings.context,
            batch_size=self.choices["batch_size"],
            steps=expected.steps,
            world_size=self.world.size,
        )
        return {**timed, "forecast": expected.as_dict(), "stages": stages}

    def _pilots(self, choices: dict[str, Any], steps: int, step_s: float) -> dict[int, float]:
        """Losses of shorter runs like this one: those kept, and those that the budget allows."""
        assert self.settings.data is not None
        batches = self._validation_batches(pilot.EVAL_TOKENS, 1)

        def score(model: models.LanguageModel) -> float:
            with autocast(self.device, choices["precision"]):
                return self.evaluate_fn(model, batches)["val_bits_per_byte"]

        return pilot.train_pilots(
            self.settings,
            choices,
            self.windows,
            self.device,
            steps=steps,
            lengths=pilot.lengths(steps, step_s, self._pilot_budget),
            kept=pilot.KeptPilots(self.settings, choices, manifest_sha256(self.settings.data)),
            score_fn=score,
            on_step=lambda done, total: self.report("pilot", done, total),
        )

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

    # ------------------------------------------------------------ training

    def _reasons(self) -> list[str]:
        expected = self.choices["forecast"] or {"sentence": "no forecast: begun by an older Inkling"}
        return [*super()._reasons(), expected["sentence"]]

    def _build_optimizer(self) -> torch.optim.Optimizer:
        return choose.build_optimizer(self.settings, self.choices, self.model)

    def _task(self) -> Task:
        return pretraining_task(
            self._staged_windows(),
            micro_batch=self.choices["micro_batch"],
            seed=self.settings.seed,
            device=self.device,
            world=self.world,
            compile_loss=self.choices["compile"],
            measure_fn=self._measure,
            on_halved=self._keep_smaller_micro_batch,
            on_uncompiled=self._keep_uncompiled,
        )

    def _staged_windows(self) -> StagedWindows:
        return StagedWindows(self.windows, [Stage(**stage) for stage in self.choices.get("stages", [])])

    def _keep_uncompiled(self, reason: str) -> None:
        """Said, and kept for when the run is resumed."""
        self.report.note(f"torch.compile does not work here ({reason}): training goes on without")
        self.record.choices["compile"] = False
        checkpoint.write_run(self.run, self.record)

    def _measure(self) -> dict[str, float]:
        """What the model tells of a step; an expert that is left out for long is said once."""
        found = self.model.measurements()
        self._steps_left_out = self._steps_left_out + 1 if found.get("expert_load_min") == 0 else 0
        if self._steps_left_out == COLLAPSED_STEPS:
            warning = (
                f"an expert has had no token for {COLLAPSED_STEPS} steps: a router collapses. "
                "Raise --model.router-aux-loss-coef, or take fewer experts"
            )
            self.report.note(f"warning: {warning}")
            self.record.results["warnings"] = [*self.record.results.get("warnings", []), warning]
        return found

    def _session(self, trainer: Trainer, log: SilentLog) -> Session:
        settings = self.settings
        self._batches_of_sources = self._source_batches()
        batches = self._validation_batches(
            settings.log.eval_tokens or self._affordable_eval_tokens(), self._evaluation_rows()
        )
        return Session(
            self.run,
            self.record,
            trainer,
            settings.checkpoint,
            log,
            log_every=settings.loop.log_every,
            flops_per_token=models.cost(models.without_memory(self.model.config)).training_flops,
            peak_flops=self._peak_flops(),
            epochs_fn=self._staged_windows().epochs,
            evaluate=lambda: self._evaluate(batches),
            sample=self._sample,
            on_progress=self._show,
            keep_best=lambda model: checkpoint.save_weights(self.run, model.state_dict()),
        )

    def _evaluation_rows(self) -> int:
        return max(1, min(16, int(self.choices["micro_batch"])))

    def _affordable_eval_tokens(self) -> int:
        """So many that twenty evaluations, a third as dear as training per token, cost about a twentieth of the run."""
        tokens = min(MAX_EVAL_TOKENS, max(MIN_EVAL_TOKENS, int(self.choices["expected_tokens"] / 120)))
        return tokens // 2 if self.choices.get("average_decay") else tokens

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
        parts = [part for part in parts if part.validation.num_tokens]
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

    def _detail(self, report: StepReport) -> str:
        detail = f"loss {report.loss_average:.4f}"
        if self._scores:  # none yet in a run that was just resumed
            detail += f"  val {self._scores['val_loss']:.4f}, {self._scores['val_bits_per_byte']:.3f} bits/byte"
        return f"{detail}  {report.tokens_per_s:,.0f} tokens/s"

    # ------------------------------------------------------------ after training

    def _finish(self, session: Session) -> None:
        """Score the best weights over the whole validation split and draw the curve."""
        session.trainer.optimizer.state.clear()  # as large as two models, and on the disk
        machine.give_back_freed_memory()
        weights, _ = read_tensors(self.run / checkpoint.WEIGHTS_FILE, verify=True)
        with torch.no_grad():
            self.model.load_state_dict({name: tensor.to(self.device) for name, tensor in weights.items()})
        scores = self.evaluate_fn(self.model, self._validation_batches(None, self._evaluation_rows()))
        state = session.trainer.state
        self.record.results |= {"validation": scores, "best_step": state.best_step}
        title = f"{self.run.name}: {self.settings.arch}, {self.record.num_parameters / 1e6:.1f} M parameters"
        plot_losses(self.run, title)
        checkpoint.write_run(self.run, self.record)
