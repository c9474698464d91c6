"""The settings of `inkling train`. Each section is declared next to what it builds and gathered here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from inkling.config import Bytes, CommandSettings, Duration, Field, Positional, Section, SettingsConfigDict
from inkling.models import AttentionKernel
from inkling.optim._ema import AverageSettings
from inkling.optim._schedule import ScheduleSettings
from inkling.optim.adamw import Config as AdamWConfig
from inkling.optim.muon import Config as MuonConfig
from inkling.train.growth import GrowthSettings
from inkling.train.guard import GuardSettings
from inkling.train.loop import LoopSettings
from inkling.train.presets import PRESETS
from inkling.train.session import CheckpointSettings


class ModelSettings(Section):
    """Changes to the named size. Keys are those of the architecture's config.json."""

    hidden_size: int | None = Field(None, ge=8)
    """Width."""
    num_hidden_layers: int | None = Field(None, ge=1)
    """Depth."""
    num_attention_heads: int | None = Field(None, ge=1)
    """Query heads."""
    num_key_value_heads: int | None = Field(None, ge=1)
    """Key and value heads; fewer than query heads save memory when generating."""
    head_dim: int | None = Field(None, ge=2)
    """Size of a head."""
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the feed-forward layers."""
    tie_word_embeddings: bool | None = None
    """Use the embedding matrix as the output head too."""
    rope_theta: float | None = Field(None, gt=0)
    """Base of the rotary positions: larger for longer texts."""
    sliding_window: int | None = Field(None, ge=2)
    """Tokens that a token sees, in layers with a window (mistral, gemma2, mixtral)."""
    num_experts: int | None = Field(None, ge=2)
    """Experts of a layer (mixtral, qwen3_moe, deepseek_v2, deepseek_v3)."""
    num_experts_per_tok: int | None = Field(None, ge=1)
    """Experts that a token goes through."""
    moe_intermediate_size: int | None = Field(None, ge=8)
    """Width of an expert (that of mixtral's is intermediate_size)."""
    n_shared_experts: int | None = Field(None, ge=1)
    """Experts that all tokens go through (deepseek_v2 and deepseek_v3, as the next six)."""
    first_k_dense_replace: int | None = Field(None, ge=0)
    """Layers at the front that have no experts."""
    kv_lora_rank: int | None = Field(None, ge=1)
    """Width of the latent that a cache keeps of a token."""
    q_lora_rank: int | None = Field(None, ge=1)
    """Width through which queries are made."""
    qk_nope_head_dim: int | None = Field(None, ge=1)
    """Numbers of a key that do not tell its place."""
    qk_rope_head_dim: int | None = Field(None, ge=2)
    """Those that do."""
    v_head_dim: int | None = Field(None, ge=1)
    """Numbers of a value."""
    value_embeddings: bool | None = None
    """Every second layer adds a learnt vector of each token to its values (speedrun)."""
    positions: Literal["rope", "alibi", "sinusoidal", "learned", "none"] | None = None
    """How a token's place is told (workbench, as the next three)."""
    norm: Literal["rmsnorm", "layernorm"] | None = None
    """Kind of norm."""
    norm_place: Literal["pre", "post"] | None = None
    """Before each half of a layer, or after it was added to the stream."""
    activation: Literal["swiglu", "gelu", "relu2"] | None = None
    """Of the feed-forward layers."""
    router_aux_loss_coef: float | None = Field(None, ge=0)
    """Weight of the loss that spreads tokens over the experts."""
    router_z_loss_coef: float | None = Field(None, ge=0)
    """Weight of the loss that keeps the routers' logits small."""
    router_bias_rate: float | None = Field(None, ge=0)
    """How far a router's biases move in a step to keep experts even, without a loss."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations dropped in training. Default: 0 below four passes over the text, 0.1 from there."""


class MachineSettings(Section):
    """How to compute. `auto` times the candidates on this machine and keeps the fastest."""

    device: str = "auto"
    """cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward and backward pass; weights and optimizer state are always fp32."""
    attention: AttentionKernel = "auto"
    """Kernel of attention: sdpa or explicit; on a GPU also flex or varlen, for packed documents."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """torch.compile. `auto` tries it where the run is long enough to pay for it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads. Default: timed."""
    micro_batch: int | None = Field(None, ge=1)
    """Sequences in one forward and backward pass; it must divide the batch. Default: timed."""
    nice: bool = False
    """Leave a core to the owner of the machine, and let other programs go first."""
    cool: float | None = Field(None, gt=0, lt=150)
    """Hold the GPU (through NVML), or the CPU, at this temperature in degrees Celsius by pausing between steps."""
    probe: Literal["cached", "anew"] = "cached"
    """Timings are kept, for the same model on the same machine; anew times again."""
    recompute: bool = False
    """Activation checkpointing: about a third slower, far less memory."""


class LogSettings(Section):
    """What is written while training."""

    wandb: str | None = None
    """Also send metrics to this project of Weights & Biases (pip install 'inkling-lm[wandb]')."""
    samples: bool = True
    """Write a sample at each evaluation to samples.txt."""
    prompt: str = ""
    """What the samples begin with."""
    sample_tokens: int = Field(96, ge=1)
    """Length of a sample, in tokens."""
    tasks: list[str] = Field([])
    """Also put these tasks at each evaluation, such as copying,gsm8k=test.jsonl; see `inkling eval --task`."""
    task_data: Path | None = None
    """File of the questions of tasks that name none."""
    task_items: int = Field(32, ge=1)
    """Questions of each."""
    eval_tokens: int | None = Field(None, ge=1)
    """Validation tokens of an evaluation during training. Default: so many that all evaluations cost a twentieth of
    the run. The last one takes the whole split."""


class TrainSettings(CommandSettings):
    """Train a model on a data folder, or resume a run.

    What is not given is chosen: size and horizon from the amount of text, the rest from the size, precision and
    threads by timing. Each choice is printed with its reason.

    Example: inkling train data/notes --time 10m
    Example: inkling train data/notes --size 10m --steps 2000 --optimizer adamw --adamw.lr 1e-3
    Example: inkling train --resume
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    data: Positional[Path | None] = None
    """Data folder made by `inkling prep`. Not needed with --resume."""
    out: Path | None = None
    """Run directory. Default: runs/<name of the data folder>."""
    preset: str | None = None
    """A named group of settings that was run and measured; anything given beside it wins."""
    start_from: Path | None = None
    """A run or an import whose weights, shape and tokenizer the new run begins with, instead of random weights. Prepare
    the text with its tokenizer (`inkling prep --tokenizer RUN`)."""
    arch: str = "qwen3"
    """Architecture: a file in inkling/models (see `inkling models`)."""
    size: str = "auto"
    """Named size (see `inkling models`), or auto: chosen from the amount of text."""
    context: int = Field(256, ge=2)
    """Tokens that the model sees at once."""
    vocab_multiple: int = Field(1, ge=1)
    """Rows of the embedding are a multiple of this; those beyond the vocabulary are never chosen. 64 suits GPUs."""
    stride: int | None = Field(None, ge=1)
    """Tokens from the beginning of a training window to that of the next; less than the context makes them overlap.
    Default: the context."""
    batch_size: int | None = Field(None, ge=1)
    """Sequences per step. Default: derived from the tokens to train on."""
    steps: int | None = Field(None, ge=1)
    """Length of the run in steps. Default: derived, unless --time is given."""
    time: Duration | None = None
    """Length of the run in time, such as 90s, 10m or 2h; the schedule follows the clock."""
    devices: int = Field(1, ge=1)
    """Processes that train together on this machine, each on a GPU of its own, or a share of the cores. The global
    batch is the same. torchrun works too."""
    memory: Bytes | None = None
    """Memory that training may take, such as 8GB; the size is chosen to fit. Default: what is free."""
    pilot: float | None = Field(None, ge=0, le=0.75)
    """Share of the run's steps to spend on pilots before it: short runs with the same settings, from whose losses that
    of the run is extrapolated. They are kept for the next time. Default of `inkling plan`: 0.15, but at least a minute
    and at most five; of `inkling train`: 0, those that a plan has kept are used."""
    seed: int = Field(1, ge=0)
    """Seed of weights, data order and dropout."""
    resume: bool | None = None
    """Continue an interrupted run; --no-resume starts a new one beside it. Default: ask, on a terminal."""
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    """auto takes Muon where its own cost stays below that of the model's matrix products."""
    qat: Literal["int8", "int4"] | None = None
    """Train with weights rounded as `inkling quantize` will round them (quantization-aware training): most often with
    --start-from a finished run."""
    find_lr: bool = False
    """Do not train: let all learning rates rise over a short run, draw the loss, and suggest a peak."""
    as_json: bool = False
    """Print one JSON object with the results on standard output."""

    model: ModelSettings = ModelSettings()
    """Changes to the named size."""
    muon: MuonConfig = MuonConfig()
    """Muon, and the AdamW beside it."""
    adamw: AdamWConfig = AdamWConfig()
    """AdamW for everything."""
    schedule: ScheduleSettings = ScheduleSettings()
    """The learning rate over the run."""
    growth: GrowthSettings = GrowthSettings()
    """Shorter rows and smaller batches at the beginning."""
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
    def _data_or_resume(self) -> TrainSettings:
        if self.data is None and not self.resume:
            raise ValueError("give a data folder, or --resume to continue the last interrupted run")
        return self

    @model_validator(mode="after")
    def _shape_is_that_of_the_source(self) -> TrainSettings:
        shaped = self.model.model_dump(exclude={"dropout"}, exclude_none=True)
        if self.start_from is not None and (self.size != "auto" or shaped or self.vocab_multiple != 1):
            raise ValueError(
                "start_from brings its own shape: leave out --size, --vocab-multiple and changes to the size"
            )
        return self

    @model_validator(mode="after")
    def _stride_leaves_no_gaps(self) -> TrainSettings:
        if self.stride is not None and self.stride > self.context:
            raise ValueError(f"stride {self.stride} is larger than context {self.context}: text would be left out")
        return self

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> TrainSettings:
        micro_batch = self.machine.micro_batch
        if micro_batch and self.batch_size and self.batch_size % micro_batch:
            raise ValueError(f"machine.micro_batch {micro_batch} must divide batch_size {self.batch_size}")
        return self
