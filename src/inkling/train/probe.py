"""Times this model on this machine and chooses precision, threads, micro-batch, attention kernel and compilation.

Guessing is wrong too often: bf16 is up to six times faster on large matrices and slower on small ones, and two
threads on a half-busy machine can be eight times slower than one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from inkling.errors import ConfigError
from inkling.models import ON_CUDA, AttentionKernel, attention_kernel, other_kernels
from inkling.train.compiled import why
from inkling.train.loop import MicroBatch, is_out_of_memory
from inkling.train.precision import DTYPES, PrecisionName, autocast

LossFn = Callable[[nn.Module, MicroBatch], Tensor]

_TIMED_RUNS = 3
_LONG_PASS_S = 1.0
_MIN_GAIN = 1.05
"""A choice that departs from the plain one must be this much faster: less is within the noise."""
COMPILE_WORTH_S = 300.0
"""Compiling takes about half a minute; it is tried on runs expected to take longer than this."""


@dataclass(frozen=True)
class Choices:
    """What was chosen by timing. Stored with the run: a resumed run must compute the same numbers.

    Attributes:
        micro_batch: Sequences in one forward and backward pass.
        tokens_per_s: Measured with these choices, forward and backward.
    """

    precision: PrecisionName
    num_threads: int
    micro_batch: int
    attention: AttentionKernel = "auto"
    compile: bool = False
    tokens_per_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


class Probe:
    """Measures candidates one by one, always against the best so far.

    Args:
        model: Its weights are left alone; gradients are cleared.
        loss_fn: The stage's loss.
        batch: One step's sequences, on the model's device: `input_ids` and `targets` (B, T).
        max_seconds: Stop trying further candidates after this time.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn, batch: MicroBatch, *, max_seconds: float = 20.0) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.batch = batch
        self.device = batch.input_ids.device
        self.deadline_s = time.monotonic() + max_seconds
        self.measured: dict[Choices, float] = {}

    def choose(self, start: Choices, *, free: set[str], expected_tokens: float) -> tuple[Choices, str]:
        """The fastest choices reachable from `start` by changing what is `free`, and a line that says why.

        Args:
            start: Holds what the user fixed, and the plain choice for the rest.
            free: Names of the fields of `Choices` that may be changed.
            expected_tokens: Tokens that the run will train on, to see whether compiling can pay.

        Raises:
            ConfigError: What the user fixed cannot be computed here.
        """
        if start.attention in ON_CUDA and self.device.type != "cuda":
            raise ConfigError(
                f"machine.attention {start.attention} is for CUDA: leave it out, or take sdpa or explicit"
            )
        if "precision" in free:  # first: it matters most, and time may run out
            part = max(1, start.micro_batch // 2) if "micro_batch" in free else start.micro_batch
            precision = self._fastest_precision(replace(start, micro_batch=part))
            start = replace(start, precision=precision)
        best = start
        self._time_first(best)
        if "num_threads" in free and self.device.type == "cpu" and start.num_threads > 1:
            best = self._better(best, replace(best, num_threads=1))
        if "micro_batch" in free:
            best = self._search_micro_batch(best)
        if "attention" in free:
            best = self._search_attention(best)
        if "compile" in free and expected_tokens / self.measured[best] > COMPILE_WORTH_S:
            best = self._try(best, replace(best, compile=True))
        best = replace(best, tokens_per_s=self.measured[best])
        return best, self._explain(best)

    def _fastest_precision(self, best: Choices) -> PrecisionName:
        """Of these choices: half a micro-batch in fp32 needs no more memory than the whole one in bf16 that follows."""
        self._time_first(best)
        names: list[PrecisionName] = ["bf16", "fp16"] if self.device.type == "cuda" else ["bf16"]
        for name in names:
            best = self._better(best, replace(best, precision=name))
        return best.precision

    def _time_first(self, choices: Choices) -> None:
        """What has to run here, for there is nothing else to take."""
        if choices in self.measured:
            return
        try:
            self._time(choices)
        except RuntimeError as error:
            if not choices.compile or is_out_of_memory(error):
                raise
            raise ConfigError(
                f"torch.compile does not work here: {why(error)}. Leave out --machine.compile yes, or install a C++ "
                "compiler such as g++"
            ) from None

    def _search_micro_batch(self, best: Choices) -> Choices:
        size = best.micro_batch
        while size % 2 == 0 and size > 1:
            size //= 2
            better = self._better(best, replace(best, micro_batch=size))
            if better is best:
                break
            best = better
        return best

    def _search_attention(self, best: Choices) -> Choices:
        """On a GPU the kernels are about packed rows: without them there is nothing to choose."""
        if self.device.type == "cuda" and self.batch.segment_ids is None:
            return best
        values = torch.empty(0, dtype=DTYPES[best.precision], device=self.device)
        for kernel in other_kernels(values, self.batch.input_ids.shape[1]):
            best = self._try(best, replace(best, attention=kernel))
        return best

    def _try(self, best: Choices, candidate: Choices) -> Choices:
        """The better of the two, where the candidate runs here at all."""
        try:
            return self._better(best, candidate)
        except Exception:  # no compiler, no Triton, an unsupported operator: torch raises many kinds
            return best

    def _better(self, best: Choices, candidate: Choices) -> Choices:
        if time.monotonic() > self.deadline_s:
            return best
        return candidate if self._time(candidate) > _MIN_GAIN * self.measured[best] else best

    def _time(self, choices: Choices) -> float:
        """Tokens per second of forward and backward with `choices`: the best of a few runs after a first one.

        Where a pass takes long, or longer than with the best choices so far, one pass tells enough.
        """
        batch = _first(self.batch, choices.micro_batch)
        loss_fn = torch.compile(self.loss_fn) if choices.compile else self.loss_fn
        with threads(choices.num_threads), attention_kernel(choices.attention):
            seconds = self._pass(loss_fn, batch, choices.precision)
            fastest = max(self.measured.values(), default=0.0)
            if choices.compile or not (seconds > _LONG_PASS_S and batch.input_ids.numel() / seconds < fastest):
                runs = 1 if seconds > _LONG_PASS_S and not choices.compile else _TIMED_RUNS
                seconds = min(self._pass(loss_fn, batch, choices.precision) for _ in range(runs))
        self.measured[choices] = batch.input_ids.numel() / seconds
        return self.measured[choices]

    def _pass(self, loss_fn: LossFn, batch: MicroBatch, precision: PrecisionName) -> float:
        started_s = time.perf_counter()
        with autocast(self.device, precision):
            loss = loss_fn(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.model.zero_grad(set_to_none=True)
        return time.perf_counter() - started_s

    def _explain(self, best: Choices) -> str:
        def short(choices: Choices) -> str:
            more = "" if choices.attention == "auto" else f", attention {choices.attention}"
            more += ", compiled" if choices.compile else ""
            return (
                f"{choices.precision}, {choices.num_threads} threads, micro-batch {choices.micro_batch}{more} "
                f"{self.measured[choices]:,.0f} tokens/s"
            )

        chosen = replace(best, tokens_per_s=0.0)
        others = "; ".join(short(choices) for choices in self.measured if choices != chosen)
        return f"{short(chosen)}" + (f" (slower: {others})" if others else "")


def peak_flops(device: torch.device, precision: PrecisionName, num_threads: int) -> float:
    """Operations per second of a large matrix product: what nothing on this machine exceeds."""
    size = 1024 if device.type == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=DTYPES[precision], device=device)
    with threads(num_threads):
        seconds = []
        for _ in range(5):
            started_s = time.perf_counter()
            matrix @ matrix
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started_s)
    return 2 * size**3 / min(seconds)


def _first(batch: MicroBatch, num_sequences: int) -> MicroBatch:
    segments = None if batch.segment_ids is None else batch.segment_ids[:num_sequences]
    return MicroBatch(batch.input_ids[:num_sequences], batch.targets[:num_sequences], segments)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with this many CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
