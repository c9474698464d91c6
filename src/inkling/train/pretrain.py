"""Pretraining: next-token prediction over packed documents. Supplies the loop's batches and loss, and nothing else.

Documents are packed without padding, and attention stays inside a document (see `docs/architecture.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from inkling.data.loader import Batch
from inkling.data.stages import StagedWindows
from inkling.models import LanguageModel
from inkling.train.background import Ahead
from inkling.train.compiled import compiled
from inkling.train.cross_entropy import summed_cross_entropy
from inkling.train.loop import MicroBatch, Task
from inkling.train.world import ALONE, World


def to_micro_batch(batch: Batch, rows: slice, device: torch.device) -> MicroBatch:
    """Some rows of a batch, as tensors on `device`."""

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[rows]).to(device, non_blocking=True)

    segments = None if batch.segment_ids is None else tensor(batch.segment_ids)
    return MicroBatch(tensor(batch.input_ids), tensor(batch.targets), segments)


def next_token_loss(model: nn.Module, batch: MicroBatch) -> Tensor:
    """Summed nats of predicting each target from what stands before it in its document.

    What a model wants beside that, such as even use of its experts, is in the gradient and not in the number.
    """
    assert isinstance(model, LanguageModel)
    hidden = model.hidden(batch.input_ids, segment_ids=batch.segment_ids).flatten(0, 1)  # (B·T, C)
    nats = summed_cross_entropy(hidden, model.head_weight, batch.targets.flatten(), model.config.logit_softcap)
    beside = model.auxiliary_loss() if model.training else None
    if beside is None:
        return nats
    summed = beside * batch.targets.numel()
    return nats + summed - summed.detach()


def pretraining_task(
    windows: StagedWindows,
    *,
    micro_batch: int,
    seed: int,
    device: torch.device,
    world: World = ALONE,
    compile_loss: bool = False,
    measure_fn: Callable[[], dict[str, float]] = dict,
    on_halved: Callable[[int], None] = lambda micro_batch: None,
    on_uncompiled: Callable[[str], None] = lambda reason: None,
) -> Task:
    """The loop's task: the windows of a step, in portions of `micro_batch`; shorter rows in as much larger ones.

    Each process of `world` takes its rows of them.

    Args:
        on_halved: Told of the new micro-batch when memory did not suffice for the old one.
        on_uncompiled: Told why, when the loss could not be compiled; it is then computed without.
    """
    size, stage = micro_batch, windows.stages[0]
    batch_of = Ahead(lambda step: windows.batch(step, rank=world.rank, world_size=world.size))

    def micro_batches(step: int) -> Iterator[MicroBatch]:
        nonlocal stage
        stage = windows.stage(step)
        batch, rows = batch_of(step), size * (windows.windows.context // stage.context)
        for start in range(0, len(batch.input_ids), rows):
            yield to_micro_batch(batch, slice(start, start + rows), device)

    def halve() -> bool:
        nonlocal size
        if size == 1:
            return False
        size = size // 2 if size % 2 == 0 else 1
        on_halved(size)
        return True

    def measure() -> dict[str, float]:
        of_stage = {"context": stage.context, "windows": stage.windows} if len(windows.stages) > 1 else {}
        return {**measure_fn(), **of_stage}

    return Task(
        micro_batches,
        compiled(next_token_loss, on_uncompiled) if compile_loss else next_token_loss,
        tokens_per_step=windows.tokens(windows.stages[-1].first_step),
        seed=seed,
        tokens_fn=windows.tokens,
        size_fn=windows.tokens,
        halve=halve,
        measure_fn=measure,
    )
