"""Losses of fifty steps for every architecture, optimizer and precision, pinned: one that moves must be meant to move.

`python tests/train/test_golden.py` writes `golden_losses.json` anew; say in the commit why they moved.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inkling import models, optim
from inkling.models import SeeingModel
from inkling.optim._groups import parameter_groups
from inkling.optim._schedule import ScheduleSettings
from inkling.train.cross_entropy import summed_cross_entropy
from inkling.train.guard import GuardSettings
from inkling.train.loop import Limits, LoopSettings, MicroBatch, StepReport, Task, Trainer
from inkling.train.precision import PrecisionName
from inkling.train.pretrain import next_token_loss

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS, BATCH, CONTEXT, VOCABULARY = 50, 4, 16, 32
PATCHES = 4
"""Image tokens that a row of a model that sees begins with; their picture shows the tokens that were there."""
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Relative: processors round differently, and fifty steps let it grow."""
CASES = [
    (arch, optimizer, precision)
    for arch in models.names()
    for optimizer in optim.names()
    for precision in ("fp32", "bf16")
]


def stream() -> torch.Tensor:
    """Tokens with something to learn: a linear congruential generator's high bits, each one drawn from two."""
    values, state = [], 1
    for _ in range(STEPS * BATCH * CONTEXT + 1):
        state = (1103515245 * state + 12345) % 2**31
        values.append((3 * values[-1] + (state >> 30)) % VOCABULARY if values else 0)
    return torch.tensor(values)


def small_model(arch: str) -> models.LanguageModel:
    """A small model of an architecture; one that is made from a model of text is made from a qwen3."""
    if not models.load(arch).SIZES:
        text = {"model_type": "qwen3", "vocab_size": VOCABULARY + 1, **SHAPE, "intermediate_size": 64}
        vision = {**VISION, "image_size": 8, "patch_size": 4}
        seeing = {"text_config": text, "vision_config": vision, "image_token_index": VOCABULARY}
        return models.from_config({"model_type": arch, **seeing})
    width = {"intermediate_size": 64} if arch != "gpt2" else {}
    return models.from_config({"model_type": arch, "vocab_size": VOCABULARY, **SHAPE, **width})


def seeing_loss(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
    """The loss of the tokens after a picture, whose patches are as bright as the tokens they stand for."""
    assert isinstance(model, SeeingModel)
    ids, targets = batch.input_ids.clone(), batch.targets.clone()
    brightness = ids[:, :PATCHES].view(-1, 1, 2, 2) / VOCABULARY * 2 - 1
    pixels = brightness.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    ids[:, :PATCHES], targets[:, : PATCHES - 1] = model.image_token, -100
    hidden = model.hidden(ids, seen=model.see(pixels))
    return summed_cross_entropy(hidden.flatten(0, 1), model.head_weight, targets.flatten())


def losses(arch: str, optimizer: str, precision: PrecisionName) -> list[float]:
    """The loss of each step of a small model."""
    model = small_model(arch)
    sees = isinstance(model, SeeingModel)
    model.init_weights(torch.Generator().manual_seed(0))
    tokens = stream()

    def batches(step: int) -> list[MicroBatch]:
        start = step * BATCH * CONTEXT
        some = tokens[start : start + BATCH * CONTEXT + 1]
        rows = (some[:-1].view(BATCH, CONTEXT), some[1:].view(BATCH, CONTEXT))
        return [MicroBatch(*(part[half : half + 2] for part in rows)) for half in (0, 2)]

    module = optim.load(optimizer)
    reports: list[StepReport] = []
    trainer = Trainer(
        model,
        module.build(parameter_groups(model), module.Config()),
        Task(
            batches,
            seeing_loss if sees else next_token_loss,
            tokens_per_step=BATCH * (CONTEXT - (PATCHES - 1 if sees else 0)),
            seed=0,
        ),
        Limits(steps=STEPS),
        LoopSettings(),
        ScheduleSettings(warmup_steps=10),
        GuardSettings(),
        precision=precision,
    )
    trainer.run(on_step=reports.append, on_eval=lambda: 1.0, on_pause=lambda: None, stop_requested=lambda: False)
    return [report.loss for report in reports]


@pytest.mark.parametrize(("arch", "optimizer", "precision"), CASES)
def test_fifty_steps_have_the_losses_they_had(arch: str, optimizer: str, precision: PrecisionName) -> None:
    found = losses(arch, optimizer, precision)
    wanted = json.loads(GOLDEN.read_text())[f"{arch} {optimizer} {precision}"]
    assert len(found) == STEPS
    # One token that is sent to another expert, for a rounding error, changes all that follows. Eyes in bf16: another
    # kernel of attention, with other last bits, moved one step in fifty by 3 %.
    is_sensitive = arch in ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3") or (arch, precision) == (
        "llava",
        "bf16",
    )
    tolerance = 0.05 if is_sensitive else TOLERANCE[precision]
    np.testing.assert_allclose(found, wanted, rtol=tolerance)
    assert np.mean(found[-5:]) < 0.7 * found[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = {" ".join(case): [round(loss, 6) for loss in losses(*case)] for case in CASES}
    GOLDEN.write_text(json.dumps(content, indent=0) + "\n")
