"""A trainer on weights that are thrown away: what a run would do, without its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from inkling.data.loader import PackedWindows
from inkling.data.stages import Stage, StagedWindows
from inkling.optim._ema import WeightAverage
from inkling.train import choose
from inkling.train.loop import Limits, Trainer
from inkling.train.pretrain import pretraining_task
from inkling.train.settings import TrainSettings
from inkling.train.world import ALONE, World


def trial(
    settings: TrainSettings,
    choices: dict[str, Any],
    windows: PackedWindows,
    device: torch.device,
    limits: Limits,
    *,
    stages: Sequence[Stage] = (),
    eval_every: int = 1 << 40,
    world: World = ALONE,
) -> Trainer:
    """A fresh model with its optimizer, batches and schedule. It never goes back: there is nothing to go back to.

    Args:
        choices: Complete: what `choose.choose` and `choose.time_choices` returned.
        stages: Default: all steps are alike.
        eval_every: Default: only before the first step and after the last.
        world: Of several processes, this one's share of each step is computed, and nothing is exchanged.
    """
    model = choose.build_model(settings, choices, device)
    task = pretraining_task(
        StagedWindows(windows, stages),
        micro_batch=choices["micro_batch"],
        seed=settings.seed,
        device=device,
        world=world,
        compile_loss=choices["compile"],
    )
    return Trainer(
        model,
        choose.build_optimizer(settings, choices, model),
        task,
        limits,
        settings.loop.model_copy(update={"eval_every": eval_every, "patience": 0}),
        settings.schedule,
        settings.guard.model_copy(update={"skips_before_rollback": 1 << 30}),
        precision=choices["precision"],
        average=WeightAverage(model, choices["average_decay"]) if choices["average_decay"] else None,
    )
