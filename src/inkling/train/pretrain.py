"""Pretraining: next-token prediction over packed documents. Supplies the loop's batches and loss, and nothing else.

Documents are packed without padding, and attention stays inside a document (see `docs/architecture.md`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.data.loader import PackedWindows
from inkling.train.loop import MicroBatch, Task


def segment_ids(input_ids: np.ndarray, eot_id: int) -> np.ndarray | None:
    """Which document each position belongs to, (B, T); None where no window has a border inside.

    A document starts with the end-of-text token of the one before. Without a border the attention needs no mask,
    which is the faster path.
    """
    starts = input_ids == eot_id
    if not starts[:, 1:].any():
        return None
    return np.cumsum(starts, axis=1)


def to_micro_batch(input_ids: np.ndarray, targets: np.ndarray, eot_id: int, device: torch.device) -> MicroBatch:
    """Token ids of the loader, (B, T) each, as tensors on `device` with their document borders."""
    segments = segment_ids(input_ids, eot_id)
    return MicroBatch(
        torch.from_numpy(input_ids).to(device, non_blocking=True),
        torch.from_numpy(targets).to(device, non_blocking=True),
        None if segments is None else torch.from_numpy(segments).to(device, non_blocking=True),
    )


def next_token_loss(model: nn.Module, batch: MicroBatch) -> Tensor:
    """Summed nats of predicting each target from what stands before it in its document."""
    logits = model(batch.input_ids, segment_ids=batch.segment_ids)  # (B, T, V): the largest tensor of a step
    return F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="sum")


def pretraining_task(
    windows: PackedWindows,
    *,
    batch_size: int,
    micro_batch: int,
    context: int,
    seed: int,
    device: torch.device,
    compile_loss: bool = False,
) -> Task:
    """The loop's task: `batch_size` windows of `context` tokens a step, in portions of `micro_batch`."""

    def micro_batches(step: int) -> Iterator[MicroBatch]:
        batch = windows.batch(step)
        for start in range(0, batch_size, micro_batch):
            rows = slice(start, start + micro_batch)
            yield to_micro_batch(batch.input_ids[rows], batch.targets[rows], windows.eot_id, device)

    loss_fn = torch.compile(next_token_loss) if compile_loss else next_token_loss
    return Task(micro_batches, loss_fn, tokens_per_step=batch_size * context, seed=seed)
