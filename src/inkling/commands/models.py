"""`inkling models`: every architecture and size, and what each costs on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inkling import machine
from inkling.config import CommandSettings, Field
from inkling.progress import LiveProgress

if TYPE_CHECKING:
    import torch

    from inkling.models import Cost, ModelConfig
    from inkling.train.probe import Choices

TRAINING_TOKENS = 2048
"""Tokens in one forward and backward pass, for the memory to train."""
_PROBE_TOKENS = {"cpu": 1024}  # other devices need more to be kept busy
_PROBE_TOKENS_ELSEWHERE = 16_384
_PASSES_PER_PROBE = 12  # three candidates, each once to warm up and three times for the clock
_FIRST_GUESS_FLOPS = 20e9


class Settings(CommandSettings):
    """List architectures and sizes: exact parameters, memory to run and to train, time per million training tokens.

    Memory is for fp32 weights: to run, with the cache of one full context; to train, with AdamW and 2,048 tokens in one
    pass. Times are of forward and backward passes. Small sizes are timed; the others, marked with ~, are computed from
    the operations per second of the largest one that was timed.

    Example: inkling models
    Example: inkling models --arch qwen3 --vocab-size 4096 --json
    """

    arch: str | None = None
    """Only this architecture."""
    vocab_size: int | None = Field(None, ge=1)
    """Tokens of the vocabulary. Default: the size's own."""
    context: int | None = Field(None, ge=1)
    """Tokens that the model sees at once. Default: the size's own."""
    seconds: float = Field(20.0, ge=0, le=600)
    """Time for all measurements together, in seconds; 0: measure nothing."""
    as_json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Row:
    """One size of one architecture.

    Attributes:
        table_share: Share of the parameters that are embeddings and an untied head.
        seconds_per_million_tokens: Of training; None when nothing was measured.
        timed: Whether this very size was timed.
    """

    architecture: str
    size: str
    num_parameters: int
    table_share: float
    running_bytes: int
    training_bytes: int
    training_flops_per_token: float
    seconds_per_million_tokens: float | None
    timed: bool
    config: dict[str, Any]


def run(settings: Settings) -> None:
    """Count, time, print."""
    from inkling import models
    from inkling.commands._hooks import exports_line

    architectures = models.names() if settings.arch is None else [settings.arch]
    rows: list[Row] = []
    with LiveProgress(quiet=settings.as_json) as progress:
        for done, name in enumerate(architectures):
            progress("timing", done, len(architectures), name)
            rows += rows_of(name, settings, settings.seconds / len(architectures))
    if settings.as_json:
        print(json.dumps({"machine": machine.summary(), "models": [asdict(row) for row in rows]}))
        return
    print(f"{machine.cpu_name()}, {machine.usable_cores()} cores")
    for name in architectures:
        of_this = [row for row in rows if row.architecture == name]
        print_table(name, of_this)
        print(f"  {exports_line(models.read_config(of_this[0].config))}")


def rows_of(name: str, settings: Settings, seconds: float) -> Iterator[Row]:
    """The sizes of an architecture, smallest first, as many timed as fit into `seconds`."""
    from inkling import models

    architecture = models.load(name)
    changes = {"vocab_size": settings.vocab_size, "max_position_embeddings": settings.context}
    changes = {key: value for key, value in changes.items() if value is not None}
    clock = _Clock(seconds)
    for size, values in architecture.SIZES.items():
        config = architecture.Config.from_dict({**values, **changes})
        cost = models.cost(models.without_memory(config))
        timed = clock.time(config, cost)
        yield Row(
            architecture=name,
            size=size,
            num_parameters=cost.num_parameters,
            table_share=cost.table_parameters / cost.num_parameters,
            running_bytes=cost.running_bytes,
            training_bytes=cost.training_bytes(TRAINING_TOKENS),
            training_flops_per_token=cost.training_flops,
            seconds_per_million_tokens=1e6 * cost.training_flops / clock.flops if clock.flops else None,
            timed=timed,
            config=config.to_dict(),
        )


class _Clock:
    """Times models of growing size, within a budget, and remembers the speed of the last one.

    Attributes:
        flops: Operations per second of the last model timed, forward and backward; 0 before the first.
    """

    def __init__(self, seconds: float) -> None:
        self.flops = 0.0
        self._deadline = time.monotonic() + seconds
        self._start: Choices | None = None

    def time(self, config: ModelConfig, cost: Cost) -> bool:
        """Time a model where the budget is likely to allow it; says whether it did."""
        from inkling.train.run import pick_device

        device = pick_device("auto")
        tokens = max(config.max_position_embeddings, _PROBE_TOKENS.get(device.type, _PROBE_TOKENS_ELSEWHERE))
        expected_s = _PASSES_PER_PROBE * tokens * cost.training_flops / (self.flops or _FIRST_GUESS_FLOPS)
        if expected_s > self._deadline - time.monotonic():
            return False
        self.flops = self._tokens_per_s(config, tokens // config.max_position_embeddings, device) * cost.training_flops
        return True

    def _tokens_per_s(self, config: ModelConfig, num_sequences: int, device: torch.device) -> float:
        import torch

        from inkling import models
        from inkling.train.loop import MicroBatch
        from inkling.train.pretrain import next_token_loss
        from inkling.train.probe import Choices, Probe

        model = models.load(config.model_type).Model(config)
        model.init_weights(torch.Generator().manual_seed(0))
        model.to(device)
        input_ids = torch.randint(config.vocab_size, (num_sequences, config.max_position_embeddings), device=device)
        probe = Probe(model, next_token_loss, MicroBatch(input_ids, input_ids))
        free = {"precision"} if self._start else {"precision", "num_threads"}
        start = self._start or Choices("fp32", machine.usable_cores(), num_sequences)
        start = Choices("fp32", start.num_threads, num_sequences)
        self._start, _ = probe.choose(start, free=free, expected_tokens=0)
        return self._start.tokens_per_s


def print_table(name: str, rows: list[Row]) -> None:
    """One line for each size."""
    print(f"\n{name}")
    print(
        f"  {'size':<6}{'parameters':>14}{'tables':>8}{'layers':>8}{'width':>7}{'heads':>7}{'vocab':>8}{'context':>9}"
        f"{'run':>9}{'train':>9}{'1 M tokens':>13}"
    )
    for row in rows:
        shape = _shape(row)
        print(
            f"  {row.size:<6}{row.num_parameters:>14,}{row.table_share:>8.0%}{shape[0]:>8}{shape[1]:>7}{shape[2]:>7}"
            f"{shape[3]:>8,}{shape[4]:>9,}{_bytes(row.running_bytes):>9}{_bytes(row.training_bytes):>9}{_time(row):>13}"
        )


def _shape(row: Row) -> tuple[int, int, int, int, int]:
    from inkling import models

    config = models.load(row.architecture).Config.from_dict(row.config)
    return (
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.vocab_size,
        config.max_position_embeddings,
    )


def _bytes(number: float) -> str:
    return f"{number / 1e6:,.0f} MB" if number < 1e9 else f"{number / 1e9:,.1f} GB"


def _time(row: Row) -> str:
    seconds = row.seconds_per_million_tokens
    if seconds is None:
        return "not timed"
    mark = "" if row.timed else "~ "
    if seconds < 100:
        return f"{mark}{seconds:.0f} s"
    return f"{mark}{seconds / 60:.0f} min" if seconds < 6000 else f"{mark}{seconds / 3600:.1f} h"
