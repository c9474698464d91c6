"""The settings of `inkling tune`. Each section is declared next to what it builds and gathered here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from inkling.config import CommandSettings, Duration, Field, Positional, Section, SettingsConfigDict
from inkling.optim._ema import AverageSettings
from inkling.optim._schedule import ScheduleSettings
from inkling.optim.muon import Config as MuonConfig
from inkling.peft import AdapterSettings
from inkling.train.distill import DistillSettings
from inkling.train.encode import Format
from inkling.train.guard import GuardSettings
from inkling.train.loop import LoopSettings
from inkling.train.preferences import PreferenceSettings
from inkling.train.reward_model import RewardSettings
from inkling.train.rollouts import RolloutSettings
from inkling.train.session import CheckpointSettings
from inkling.train.settings import LogSettings, MachineSettings

Method = Literal["sft", "dpo", "orpo", "simpo", "kto", "grpo", "rloo", "ppo", "reward", "distill"]
Adapter = Literal["none", "lora", "lora-int8", "lora-int4", "lora-nf4"]


_PAIRS = ("dpo", "orpo", "simpo")
REINFORCE = ("grpo", "rloo", "ppo")
"""The methods that learn from rewards for their own answers."""
_METHODS_OF: dict[str, tuple[str, ...]] = {
    "answers": ("sft", "distill"),
    "preference.beta": (*_PAIRS, "kto"),
    "preference.loss": ("dpo",),
    "preference.label_smoothing": ("dpo", "simpo"),
    "preference.length_normalised": ("dpo",),
    "preference.sft_weight": (*_PAIRS, "kto"),
    "preference.margin": ("simpo",),
    "preference.bad_weight": ("kto",),
    "preference.reference": ("dpo", "kto"),
    **{f"rl.{name}": REINFORCE for name in ("group_size", "temperature", "top_k", "updates", "kl", "kl_target")},
    **{f"rl.{name}": REINFORCE for name in ("clip_low", "clip_high", "learn_truncated", "accept_hackable")},
    "rl.mean": ("grpo", "ppo"),
    "rl.by_spread": ("grpo",),
    **{f"rl.{name}": ("ppo",) for name in ("discount", "decay", "value_weight")},
    "reward.centering": ("reward",),
    **{f"distill.{name}": ("distill",) for name in ("teacher", "top_k", "temperature", "weight", "logits")},
}
"""Options that only some methods look at: with another one they would be passed over in silence."""


class OptimizerSettings(Section):
    """AdamW for tuning."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of the gradient."""
    beta2: float = Field(0.99, ge=0, lt=1)
    """Decay of the mean of its square."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay of the matrices."""


_MUON = MuonConfig(lr=0.01, momentum_warmup=100, weight_decay=0.1, embedding_lr=0.005, head_lr=0.002, vector_lr=0.002)


class TuneSettings(CommandSettings):
    """Teach a run or an import: answers to imitate, answers that are preferred, rewards.

    sft learns the answers of conversations. dpo, orpo and simpo learn from pairs of a better and a worse answer, kto
    from answers found good or bad; grpo, rloo and ppo from rewards of answers that the model gives itself. reward makes
    a reward model of preferences, distill learns what a larger model thinks of each next token. The rows may be chat
    messages, ShareGPT, Alpaca, prompt and completion, preferences, rankings, feedback or prompts alone, in any
    file that `inkling prep` reads: what they are is recognised and said. The result is a run like any other.

    Example: inkling tune runs/notes chats.jsonl
    Example: inkling tune runs/notes chats.jsonl --adapter lora --epochs 2
    Example: inkling tune runs/notes chats.jsonl --epochs 2 --plan
    Example: inkling tune runs/notes-sft pairs.jsonl --method dpo --preference.beta 0.3
    Example: inkling tune runs/code-sft tasks.jsonl --method grpo --rl.rewards unit_tests
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    start_from: Positional[Path | None] = None
    """Run or import to begin with. Not needed with --resume."""
    data: Positional[Path | None] = None
    """File or folder of rows, or a data folder that `inkling prep` made of some."""
    method: Method = "sft"
    """How it learns."""
    out: Path | None = None
    """Run directory. Default: runs/<name of the run>-<method>."""
    validation: Path | None = None
    """Rows for validation. Default: some of the prompts are kept for it."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that is kept for validation."""
    skip_bad_rows: bool = False
    """Leave rows out that cannot be used, and count them; without it, the first one is an error."""
    form: Format = "chat"
    """chat: rows by the tokenizer's chat template; one without gets ours. plain: a prompt and its answer as they are,
    for models that continue text."""
    answers: Literal["all", "last"] = "all"
    """sft: which answers of a conversation are learnt."""
    learn: Literal["all", "eyes", "projector"] = "all"
    """What learns of a model that sees: all of it, its encoder and projector, or its projector alone."""
    adapter: Adapter = "none"
    """none: all weights are trained. lora: a small adapter is, beside frozen weights, which -int8, -int4 and -nf4 keep
    packed, in less memory."""
    context: int | None = Field(None, ge=2)
    """Tokens that the model sees at once. Default: those that it can."""
    packing: Literal["auto", "yes", "no"] = "auto"
    """Several sequences in a row. auto: where rows of one would be much filling. The loss is the same."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon learns what begins at random in far fewer steps, such as new eyes; adamw keeps nearer to what was learnt
    before."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate of adamw. Default: by the model's size, the method and the adapter; see docs/tuning.md."""
    batch_size: int | None = Field(None, ge=1)
    """Conversations, pairs, answers or prompts per step. Default: 32, fewer where there are few."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the rows. Default: 3 for sft, 1 for preferences, unless --steps or --time is given."""
    steps: int | None = Field(None, ge=1)
    """Length of the run in steps. Default: by --epochs; 100 for grpo, rloo and ppo."""
    time: Duration | None = None
    """Length of the run in time, such as 90s, 10m or 2h."""
    devices: int = Field(1, ge=1)
    """Processes that train together on this machine, each on a GPU of its own, or a share of the cores. The batch, the
    schedule and the losses are those of one process."""
    seed: int = Field(1, ge=0)
    """Seed of the order, of new adapters and of what is drawn."""
    resume: bool = False
    """Continue the interrupted run that --out names."""
    plan: bool = False
    """Say what the run would be and take, and stop: nothing is trained or written."""
    as_json: bool = False
    """Print one JSON object with the results on standard output."""

    lora: AdapterSettings = AdapterSettings()
    """Adapters."""
    preference: PreferenceSettings = PreferenceSettings()
    """Learning from preferences."""
    rl: RolloutSettings = RolloutSettings()
    """Reinforcement learning, and rewards."""
    reward: RewardSettings = RewardSettings()
    """Learning a reward model."""
    distill: DistillSettings = DistillSettings()
    """Learning what a larger model thinks."""
    adamw: OptimizerSettings = OptimizerSettings()
    """The optimizer."""
    muon: MuonConfig = _MUON
    """The other one; its rates are below those of pretraining."""
    schedule: ScheduleSettings = ScheduleSettings(name="linear", warmup_steps=10)
    """The learning rate over the run."""
    average: AverageSettings = AverageSettings()
    """Moving average of the weights."""
    loop: LoopSettings = LoopSettings()
    """Clipping, evaluations, early stopping."""
    guard: GuardSettings = GuardSettings()
    """When a step is skipped, and when the run goes back."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """What is kept for resuming."""
    machine: MachineSettings = MachineSettings()
    """How to compute."""
    log: LogSettings = LogSettings()
    """What is written while training."""

    @model_validator(mode="after")
    def _what_and_from_what(self) -> TuneSettings:
        if self.resume:
            if self.out is None:
                raise ValueError("name the run to go on with: --out")
            if self.plan:
                raise ValueError("a plan is for a new run: leave out --resume")
        elif self.start_from is None or self.data is None:
            raise ValueError("give a run and a file of rows: inkling tune RUN FILE, or --resume --out RUN")
        return self

    @model_validator(mode="after")
    def _nothing_is_passed_over(self) -> TuneSettings:
        for name, methods in _METHODS_OF.items():
            section, _, key = name.rpartition(".")
            holder = getattr(self, section) if section else self
            if self.method not in methods and getattr(holder, key) != type(holder).model_fields[key].get_default():
                raise ValueError(f"{self.method} does not look at --{name.replace('_', '-')}: {', '.join(methods)} do")
        passed_over = (self.muon, _MUON) if self.optimizer == "adamw" else (self.adamw, OptimizerSettings())
        if passed_over[0] != passed_over[1]:
            other = "muon" if self.optimizer == "adamw" else "adamw"
            raise ValueError(f"{self.optimizer} does not look at --{other}.…: add --optimizer {other}, or leave it out")
        if self.adapter == "none" and self.lora != AdapterSettings():
            raise ValueError("--lora is for adapters: add --adapter lora")
        if self.preference.label_smoothing and self.preference.loss in ("hinge", "ipo"):
            raise ValueError(
                f"--preference.loss {self.preference.loss} knows no label smoothing: sigmoid and robust do"
            )
        return self

    @model_validator(mode="after")
    def _what_muon_can(self) -> TuneSettings:
        if self.optimizer == "muon" and self.lr is not None:
            raise ValueError("--lr is the rate of adamw: muon has --muon.lr for matrices, and others for the rest")
        if self.optimizer == "muon" and self.adapter != "none":
            raise ValueError("an adapter is learnt with adamw: leave out --optimizer muon")
        return self

    @model_validator(mode="after")
    def _rewards_to_learn_from(self) -> TuneSettings:
        if self.method in REINFORCE and not self.rl.rewards:
            raise ValueError(f"{self.method} learns from rewards: name some with --rl.rewards, such as unit_tests")
        if self.method == "distill" and self.distill.teacher is None:
            raise ValueError("distill learns from a larger run: name it with --distill.teacher")
        if self.method == "reward" and self.adapter != "none":
            raise ValueError("a reward model is trained as a whole: leave out --adapter")
        return self

    @model_validator(mode="after")
    def _what_several_processes_can(self) -> TuneSettings:
        if self.devices > 1 and (self.method == "ppo" or self.rl.updates > 1):
            raise ValueError("ppo and --rl.updates keep the answers of a step in one process: leave out --devices")
        if self.devices > 1 and self.plan:
            raise ValueError("a plan is timed in one process: leave out --devices")
        return self

    @model_validator(mode="after")
    def _reference_without_adapter(self) -> TuneSettings:
        if self.preference.reference == "adapter-off" and self.adapter == "none":
            raise ValueError("preference.reference adapter-off needs an adapter: add --adapter lora")
        return self
