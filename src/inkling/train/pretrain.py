"""Pretraining: next-token prediction over packed documents. Supplies the loop's batches and loss, and nothing else.

Documents are packed without padding, and attention stays inside a document (see `docs/architecture.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from inkling.data.loader import Batch, PackedWindows
from inkling.models import LanguageModel
from inkling.train.background import Ahead
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
    """Summed nats of predicting each target from what stands before it in its document."""
    assert isinstance(model, LanguageModel)
    hidden = model.hidden(batch.input_ids, segment_ids=batch.segment_ids)  # (B, T, C)
    return summed_cross_entropy(hidden.flatten(0, 1), model.head_weight, batch.targets.flatten())


def pretraining_task(
    windows: PackedWindows,
    *,
    batch_size: int,
    micro_batch: int,
    context: int,
    seed: int,
    device: torch.device,
    world: World = ALONE,
    compile_loss: bool = False,
    on_halved: Callable[[int], None] = lambda micro_batch: None,
) -> Task:
    """The loop's task: `batch_size` windows of `context` tokens a step, in portions of `micro_batch`.

    Each process of `world` takes its rows of them.

    Args:
        on_halved: Told of the new micro-batch when memory did not suffice for the old one.
    """
    size = micro_batch
    batch_of = Ahead(lambda step: windows.batch(step, rank=world.rank, world_size=world.size))

    def micro_batches(step: int) -> Iterator[MicroBatch]:
        batch, rows = batch_of(step), size
        for start in range(0, batch_size // world.size, rows):
            yield to_micro_batch(batch, slice(start, start + rows), device)

    def halve() -> bool:
        nonlocal size
        if size == 1:
            return False
        size = size // 2 if size % 2 == 0 else 1
        on_halved(size)
        return True

    loss_fn = torch.compile(next_token_loss) if compile_loss else next_token_loss
    return Task(micro_batches, loss_fn, tokens_per_step=batch_size * context, seed=seed, halve=halve)
