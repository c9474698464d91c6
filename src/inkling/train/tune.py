"""From settings to a tuned run: read rows, choose, time, train, evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkling import checkpoint, files, models, peft
from inkling.checkpoint import RunRecord
from inkling.data.chats import AnyRow, as_question
from inkling.data.examples import Examples, read_examples
from inkling.errors import CheckpointError, ConfigError
from inkling.optim import adamw, muon
from inkling.optim._groups import parameter_groups
from inkling.tensor_files import write_tensors
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import CHATML
from inkling.train.encode import Encoder, Eyes
from inkling.train.log import SilentLog, plot_losses, read_metrics
from inkling.train.loop import StepReport, Task, Trainer
from inkling.train.methods import items_of, prompts_of, sequences_of
from inkling.train.precision import autocast
from inkling.train.probe import threads
from inkling.train.reinforce import ReinforceStage
from inkling.train.reward_model import VALUE_HEAD, head_weights
from inkling.train.rollouts import Prompt, RewardFn, RolloutFn, judged_answers
from inkling.train.run import DescribeFn, Reporter, Run, SampleFn, TaskFn, deterministic, lineage_of
from inkling.train.sequences import Order, TokenBudget
from inkling.train.session import Session
from inkling.train.stage import Setting, Stage
from inkling.train.stages import build_stage
from inkling.train.trainable import make_trainable
from inkling.train.tune_choices import choose
from inkling.train.tune_forecast import TuningForecast, forecast, seconds_of
from inkling.train.tune_settings import REINFORCE, TuneSettings
from inkling.train.world import ALONE, World

_TIE = 1e-6
"""What a nat of loss counts beside a reward: few answers are often worth the same at several evaluations."""
_TIMED_VALIDATION = 32


def _is_of_value(name: str) -> bool:
    return name.startswith(f"{VALUE_HEAD}.")


class TuningRun(Run):
    """One run of tuning, new or resumed.

    Args:
        run: Run directory.
        settings: Resolved settings; those of the record for a resumed run.
        record: `run.json` of a run to resume, or None for a new one.
        sample_fn: Lets the model write.
        task_fn: Scores the model in tasks, which stand beside its other scores; None: in none.
        rollout_fn: Makes the function that lets the model answer prompts, for a tokenizer.
        reward_fn: What answers are worth; None without rewards.
        check_fn: Looks, before the run, whether rewards can be used for prompts from these places.
        describe: Says, before the run, where such a model can be exported to.
        world: The processes that train together.
    """

    def __init__(
        self,
        run: Path,
        settings: TuneSettings,
        record: RunRecord | None,
        *,
        sample_fn: SampleFn,
        report: Reporter,
        rollout_fn: Callable[[Tokenizer], RolloutFn],
        reward_fn: RewardFn | None = None,
        check_fn: Callable[[Sequence[Prompt], Sequence[str]], None] = lambda prompts, places: None,
        task_fn: TaskFn | None = None,
        describe: DescribeFn | None = None,
        world: World = ALONE,
    ) -> None:
        assert settings.start_from is not None
        assert settings.data is not None
        super().__init__(run, settings, is_new=record is None, report=report, world=world)
        self.settings = settings
        self.sample_fn = sample_fn
        self.task_fn = task_fn
        self.reward_fn, self.check_fn = reward_fn, check_fn
        self.parent = settings.start_from
        self._check_parent(record)
        self.model, self.tokenizer = checkpoint.load_model(self.parent, device=self.device)
        self._give_template()
        self.rollout_fn = rollout_fn(self.tokenizer)
        self.examples = self._read_rows(record)
        context = settings.context or self.model.config.max_position_embeddings
        if context > self.model.config.max_position_embeddings:
            raise ConfigError(f"{self.parent} sees {self.model.config.max_position_embeddings:,} tokens at once")
        folder = settings.data if settings.data.is_dir() else settings.data.parent
        eyes = Eyes.of(self.model, folder)
        self.encoder = Encoder(self.tokenizer, settings.form, context, settings.answers == "last", eyes)
        self._items = self._encode(self.examples.train), self._encode(self.examples.validation)
        self._questions = self._questions_to_judge_by()
        self._say_rows()
        self._say_what_begins()
        self.model.train()
        make_trainable(self.model, settings)
        self.choices = record.choices if record is not None else world.from_main(self._choose() if world.is_main else 0)
        if record is None and describe is not None:
            self.report.note(describe(self.model.config, self.tokenizer))
        data = {
            "folder": str(settings.data.resolve()),
            "rows_sha256": self.examples.sha256,
            **lineage_of(self.parent),
        }
        self.record = record if record is not None else self._new_record(data)
        self.stage = self._stage(settings, self.choices, *self._items, world)

    # ------------------------------------------------------------ what it begins with

    def _check_parent(self, record: RunRecord | None) -> None:
        stored = checkpoint.open_model(self.parent)
        if stored.quantization is not None:
            raise ConfigError(
                f"{self.parent} is quantized: tune the run that it was made from; --adapter lora-int4 saves memory"
            )
        known = record.data.get("start_from_sha256") if record is not None else None
        if known and known != lineage_of(self.parent)["start_from_sha256"]:
            raise CheckpointError(f"the weights of {self.parent} have changed since {self.run} began: start a new run")

    def _give_template(self) -> None:
        """A chat template for a tokenizer without one, for good."""
        if self.settings.form == "plain" or self.tokenizer.chat_template is not None:
            return
        missing = [name for name in ("<|im_start|>", "<|im_end|>") if name not in self.tokenizer.special_tokens]
        if missing:
            names = " ".join(f"'{name}'" for name in missing)
            raise ConfigError(
                f"{self.parent} has neither a chat template nor the control tokens of ours: inkling tokenizer add "
                f"{self.parent} {names} --special -o NEW, then tune NEW; or take --form plain"
            )
        self.tokenizer.chat_template = CHATML

    def _read_rows(self, record: RunRecord | None) -> Examples:
        settings = self.settings
        assert settings.data is not None
        found = read_examples(
            settings.data,
            settings.validation,
            val_fraction=settings.val_fraction,
            skip_bad=settings.skip_bad_rows,
        )
        if record is not None and record.data["rows_sha256"] != found.sha256:
            raise CheckpointError(f"the rows of {settings.data} have changed since {self.run} began: start a new run")
        return found

    def _encode(self, rows: list[AnyRow]) -> list[Any]:
        """The items of the method, in tokens."""
        if self.settings.method in REINFORCE:
            return self._prompts(rows)
        return items_of(self.settings.method, rows, self.encoder, self._bad)

    @property
    def _bad(self) -> list[str] | None:
        """Where reasons of bad rows go, if they may be left out."""
        return self.examples.bad if self.settings.skip_bad_rows else None

    def _prompts(self, rows: list[AnyRow]) -> list[Prompt]:
        return prompts_of(rows, self.encoder, self._bad, self.settings.rl.max_tokens, self.check_fn)

    def _questions_to_judge_by(self) -> list[Prompt]:
        """Validation prompts whose answers are rewarded, for methods that do not learn from that."""
        if self.reward_fn is None or self.settings.method in REINFORCE:
            return []
        return self._prompts(self.examples.validation[: self.settings.rl.eval_prompts])

    def _say_rows(self) -> None:
        train, validation = self._items
        if not train or not validation:
            raise ConfigError(f"no row of {self.settings.data} can be learnt from by {self.settings.method}")
        self.report.note(self.examples.sentence())
        if self.encoder.num_cut:
            self.report.note(
                f"{self.encoder.num_cut:,} texts are longer than {self.encoder.context} tokens and were cut"
            )

    def _choose(self) -> dict[str, Any]:
        """By the first process, for all; with what is to be expected."""
        items = sequences_of(self.settings.method, self._items[0], self.settings.rl)
        choices = choose(self.settings, self.model, items, self.encoder.context, self.report.note, self.world)
        expected = self._forecast(choices)
        self.report.note(f"  {len(choices['reasons']) + 2}. {expected.sentence()}")
        return {**choices, "forecast": expected.as_dict()}

    # ------------------------------------------------------------ the stage

    def _stage(
        self,
        settings: TuneSettings,
        choices: dict[str, Any],
        train: Sequence[Any],
        validation: Sequence[Any],
        world: World,
    ) -> Stage:
        setting = Setting(
            batch_size=choices["batch_size"],
            budget=TokenBudget(choices["micro_batch"], lambda tokens: self._keep_smaller_micro_batch(tokens)),
            context=self.encoder.context,
            pack=choices["pack"],
            seed=settings.seed,
            device=self.device,
            autocast=lambda: autocast(self.device, choices["precision"]),
            share=choices.get("share", False),  # runs begun before prompts were shared have none
            world=world,
        )
        return build_stage(
            settings,
            setting,
            train,
            validation,
            tokenizer=self.tokenizer,
            teacher_fn=self._teacher,
            store=self.run / checkpoint.TEACHER_FILE,
            rollout_fn=self.rollout_fn,
            reward_fn=self.reward_fn,
        )

    def _forecast(self, choices: dict[str, Any]) -> TuningForecast:
        """From one step of this process, and a part of an evaluation."""
        train, validation = self._items
        asked = self.settings.model_copy(
            update={"distill": self.settings.distill.model_copy(update={"logits": "live"})}  # nothing is written yet
        )
        size = choices["batch_size"] // self.world.size
        numbers = Order(len(train), size, asked.seed).items(0)
        few = {**choices, "batch_size": size}
        stage = self._stage(asked, few, [train[number] for number in numbers], validation[:_TIMED_VALIDATION], ALONE)

        def evaluation_seconds(stage: Stage) -> float:
            count = min(len(validation), asked.rl.eval_prompts) if asked.method in REINFORCE else len(validation)
            found = seconds_of(lambda: stage.evaluate(self.model), self.device) * count / min(count, _TIMED_VALIDATION)
            if self._questions:
                some = self._questions[:_TIMED_VALIDATION]
                found += seconds_of(lambda: self._judged(some), self.device) * len(self._questions) / len(some)
            return found

        with threads(choices["num_threads"]), deterministic(), stage.setting.autocast():
            return forecast(
                asked,
                choices,
                self.model,
                stage,
                len(train),
                lambda: self._optimizer(choices),
                evaluation_seconds,
            )

    def _teacher(self) -> models.LanguageModel:
        """Who is learnt from. Raises ConfigError for one that knows other tokens."""
        path = self.settings.distill.teacher
        assert path is not None
        teacher, tokenizer = checkpoint.load_model(path, device=self.device)
        if tokenizer.sha256 != self.tokenizer.sha256:
            raise ConfigError(
                f"{path} has another tokenizer than {self.parent}: let it answer with inkling sample, then sft"
            )
        return teacher.requires_grad_(requires_grad=False)

    def _task(self) -> Task:
        return self.stage.task()

    def _build_optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer(self.choices)

    def _optimizer(self, choices: dict[str, Any]) -> torch.optim.Optimizer:
        groups = parameter_groups(self.model)
        if self.settings.optimizer == "muon":
            return muon.build(groups, self.settings.muon.at_precision(choices["precision"]))
        given = self.settings.adamw
        config = adamw.Config(lr=choices["lr"], beta1=given.beta1, beta2=given.beta2, weight_decay=given.weight_decay)
        return adamw.build(groups, config)

    def train(self) -> RunRecord:
        """Train to the end or to an interruption; returns the record, whose status says which."""
        if self._is_new and self.world.is_main and not (self.run / checkpoint.RUN_FILE).exists():
            self._create_run_folder()
        with threads(self.choices["num_threads"]), deterministic(), self._autocast():
            self.stage.begin(self.model)
        return super().train()

    def _autocast(self) -> Any:
        return autocast(self.device, self.choices["precision"])

    def _create_run_folder(self) -> None:
        with files.new_folder(self.run) as folder:
            checkpoint.save_model(folder, self.model, self.tokenizer, weights=self._whole_weights(self.model))
            checkpoint.write_run(folder, self.record)

    def _session(self, trainer: Trainer, log: SilentLog) -> Session:
        settings = self.settings
        cost = models.cost(models.without_memory(self.model.config))
        return Session(
            self.run,
            self.record,
            trainer,
            settings.checkpoint,
            log,
            log_every=self.choices["log_every"],
            flops_per_token=cost.training_flops,
            peak_flops=self._peak_flops(),
            epochs_fn=lambda steps: steps * self.choices["batch_size"] / len(self._items[0]),
            evaluate=lambda: self._evaluate(log),
            sample=self._sample,
            on_progress=self._show,
            keep_best=self._keep_best,
            stored_fn=self._stored,
            objective=self._objective,
        )

    # ------------------------------------------------------------ weights

    def _stored(self, model: nn.Module) -> dict[str, Tensor]:
        """What a checkpoint keeps: all weights, or those of the adapter."""
        weights: dict[str, Tensor] = model.state_dict()
        if self.settings.adapter == "none":
            return weights
        return {name: tensor for name, tensor in weights.items() if ".adapters." in name or _is_of_value(name)}

    def _whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        weights = model.state_dict() if self.settings.adapter == "none" else peft.merged_weights(model)
        return {name: tensor for name, tensor in weights.items() if not _is_of_value(name)}

    def _keep_best(self, model: nn.Module) -> None:
        """In the run's own folder: a model that any tool opens, and the adapter by itself."""
        if self.settings.adapter != "none":
            peft.write_adapter(
                self.run / checkpoint.ADAPTER_FOLDER,
                peft.adapter_weights(model),
                self.settings.lora,
                base=str(self.parent.resolve()),
                base_sha256=self.record.data["start_from_sha256"],
                turned=self.model.config.model_type == "gpt2",
            )
            self.tokenizer.save(self.run / checkpoint.ADAPTER_FOLDER)
        if self.settings.method == "reward":
            write_tensors(self.run / checkpoint.REWARD_HEAD_FILE, head_weights(model))
        checkpoint.save_weights(self.run, self._whole_weights(model))

    # ------------------------------------------------------------ evaluation

    def _objective(self, scores: dict[str, float]) -> float:
        """What is to become small: where answers are rewarded, the negative reward; of equal ones the loss decides."""
        loss = self.stage.objective(scores)
        return _TIE * loss - scores["val_reward"] if self._questions else loss

    def _evaluate(self, log: SilentLog) -> dict[str, float]:
        with self._autocast():
            self._scores = self.stage.evaluate(self.model)
            if self._questions:
                self._scores |= self._judged(self._questions)
        if self.task_fn is not None:
            self._scores = {**self._scores, **self.task_fn(self.model, self.tokenizer)}
        for warning in self.stage.warnings:
            log.line(warning, level="WARN")
            self.report.note(f"warning: {warning}")
        self.record.results["warnings"] = [*self.record.results.get("warnings", []), *self.stage.warnings]
        self.stage.warnings = []
        return self._scores

    def _judged(self, questions: Sequence[Prompt]) -> dict[str, float]:
        assert self.reward_fn is not None
        most = self.settings.rl.max_tokens
        return judged_answers(self.model, questions, most, rollout_fn=self.rollout_fn, reward_fn=self.reward_fn)

    def _sample(self) -> str | None:
        log = self.settings.log
        if not log.samples:
            return None
        prompt: str | list[int] = log.prompt
        if not prompt:
            question = as_question(self.examples.validation[0])
            room = self.encoder.context - 1
            prompt = (
                self.encoder.prompt(question, 1)[1:room]
                if self.settings.form == "chat"
                else question.prompt[-1]["content"]
            )
        return self.sample_fn(self.model, self.tokenizer, prompt, log.sample_tokens)

    def _detail(self, report: StepReport) -> str:
        scores = "  ".join(f"{name} {value:.3f}" for name, value in list(self._scores.items())[:3])
        return f"loss {report.loss_average:.4f}  {scores}"

    def _finish(self, session: Session) -> None:
        """Scores of the best weights, with those of the beginning beside them, and the curve."""
        state = session.trainer.state
        self.record.results |= {
            "validation": self._scores_at(state.best_step),
            "start": self._scores_at(0),
            "best_step": state.best_step,
            "best_val_loss": self._scores_at(state.best_step).get("val_loss"),
        }
        title = f"{self.run.name}: {self.settings.method}, {self.record.num_parameters / 1e6:.1f} M parameters"
        is_rewarded = isinstance(self.stage, ReinforceStage)
        plot_losses(self.run, title, "reward" if is_rewarded else self.stage.what_the_loss_is, rewards=is_rewarded)
        checkpoint.write_run(self.run, self.record)

    def _scores_at(self, step: int) -> dict[str, float]:
        """What the evaluation at a step found."""
        rows = [row for row in read_metrics(self.run) if row["step"] == step and self._scores.keys() <= row.keys()]
        return {name: rows[-1][name] for name in self._scores} if rows else {}
