"""The loop on a model of one number: skipping, going back, early stopping, accumulation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inkling.optim import adamw
from inkling.optim._groups import Group
from inkling.optim._schedule import ScheduleSettings
from inkling.train.guard import Guard, GuardSettings
from inkling.train.loop import Limits, LoopSettings, MicroBatch, Rollback, StepReport, Task, Trainer


class Line(nn.Module):
    """Predicts a constant; its loss is the squared distance from the batch's number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))


def distance(model: nn.Module, batch: MicroBatch) -> Tensor:
    return ((model.value - batch.targets) ** 2).sum()  # type: ignore[operator]


def trainer(numbers: Any, *, steps: int = 10, parts: int = 1, **loop: Any) -> Trainer:
    model = Line()
    optimizer = adamw.build([Group("vectors", [model.value])], adamw.Config(lr=0.1))

    def batches(step: int) -> list[MicroBatch]:
        values = torch.tensor(numbers(step), dtype=torch.float32).reshape(parts, -1)
        return [MicroBatch(part, part) for part in values]

    task = Task(batches, distance, tokens_per_step=len(numbers(0)), seed=0)
    return Trainer(
        model,
        optimizer,
        task,
        Limits(steps=steps),
        LoopSettings(**loop),
        ScheduleSettings(name="constant", warmup_steps=0),
        GuardSettings(skips_before_rollback=3),
    )


def run(loop: Trainer, losses: list[float] | None = None) -> tuple[str, list[StepReport]]:
    reports: list[StepReport] = []
    evaluations = iter(losses) if losses is not None else None
    stop = loop.run(
        on_step=reports.append,
        on_eval=lambda: next(evaluations) if evaluations is not None else float(loop.model.value.item()),
        on_pause=lambda: None,
        stop_requested=lambda: False,
    )
    return stop, reports


def test_micro_batches_add_up_to_the_batch() -> None:
    numbers = lambda step: [1.0, 2.0, 3.0, step + 4.0]  # noqa: E731
    whole, parts = trainer(numbers), trainer(numbers, parts=2)
    _, reports = run(whole)
    _, reports_of_parts = run(parts)
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in reports_of_parts], rel=1e-6)
    torch.testing.assert_close(whole.model.value, parts.model.value)


def test_a_step_that_is_not_finite_is_skipped_counted_and_leaves_no_trace() -> None:
    bad = trainer(lambda step: [math.nan if step == 4 else 1.0] * 2)
    _, reports = run(bad)
    assert [report.step for report in reports if report.skipped] == [5]
    assert bad.guard.num_skipped == 1
    without = trainer(lambda step: [1.0] * 2, steps=9)
    run(without)
    assert torch.equal(bad.model.value, without.model.value)


def test_several_bad_steps_in_a_row_ask_to_go_back() -> None:
    bad = trainer(lambda step: [math.inf if step >= 4 else 1.0] * 2)
    with pytest.raises(Rollback):
        run(bad)
    assert bad.state.step == 7


def test_guard_skips_a_spike_but_not_a_slow_rise() -> None:
    guard = Guard(GuardSettings())
    for step in range(64):
        assert guard.reason_to_skip(2.0 + 0.05 * math.sin(step), 1.0) is None
    assert "sigma above" in str(guard.reason_to_skip(9.0, 1.0))
    assert "times the usual" in str(guard.reason_to_skip(2.0, 1000.0))
    assert guard.reason_to_skip(2.1, 1.5) is None
    again = Guard(GuardSettings())
    again.restore(guard.state())
    assert again.state() == guard.state()


def test_early_stopping_counts_evaluations_without_a_better_loss() -> None:
    loop = trainer(lambda step: [1.0], steps=100, eval_every=2, patience=2)
    stop, reports = run(loop, losses=[5.0, 4.0, 3.0, 3.5, 3.4, 1.0])
    assert stop == "patience"
    assert loop.state.best_loss == 3.0
    assert (loop.state.best_step, loop.state.previous_best_loss) == (4, 4.0)
    assert len(reports) == 8


def test_evaluations_come_at_the_start_at_intervals_and_at_the_end() -> None:
    loop = trainer(lambda step: [1.0], steps=7, eval_every=3)
    evaluated: list[int] = []

    def evaluate() -> float:
        evaluated.append(loop.state.step)
        return 1.0

    loop.run(on_step=lambda r: None, on_eval=evaluate, on_pause=lambda: None, stop_requested=lambda: False)
    assert evaluated == [0, 3, 6, 7]


def test_a_time_limit_ends_the_run_and_drives_the_schedule() -> None:
    loop = trainer(lambda step: [1.0])
    loop.limits = Limits(time_s=0.2)
    loop.schedule = ScheduleSettings(name="linear", warmup_steps=0, final=0.0)
    stop, reports = run(loop)
    assert stop == "time"
    rates = [report.learning_rate for report in reports]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]


def test_clipping_bounds_the_gradient_that_the_optimizer_sees() -> None:
    seen: list[float] = []
    loop = trainer(lambda step: [1000.0], steps=3, clip_norm=0.5)
    step = loop.optimizer.step

    def spy() -> None:
        seen.append(loop.model.value.grad.abs().item())  # type: ignore[union-attr]
        step()

    loop.optimizer.step = spy  # type: ignore[method-assign,assignment]
    _, reports = run(loop)
    assert seen == pytest.approx([0.5] * 3, rel=1e-4)
    assert reports[0].gradient_norm == pytest.approx(2000)


def test_a_step_that_does_not_fit_into_memory_is_done_in_smaller_portions(data_folder: Path) -> None:
    """A device that holds two rows at most: the run goes on, and ends where one of micro-batches of two does."""
    from inkling import models
    from inkling.data.loader import PackedWindows
    from inkling.data.shards import Dataset
    from inkling.data.stages import StagedWindows
    from inkling.train.pretrain import next_token_loss, pretraining_task

    dataset = Dataset.open(data_folder)
    windows = PackedWindows([(dataset.train, 1.0)], context=16, batch_size=8, seed=0, eot_id=dataset.eot_id)
    config = {"model_type": "qwen3", "vocab_size": dataset.vocab_size, "hidden_size": 16, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 16}

    def small_device(model: nn.Module, batch: MicroBatch) -> Tensor:
        if len(batch.input_ids) > 2:
            raise torch.OutOfMemoryError("the device holds two rows")
        return next_token_loss(model, batch)

    ends, halved = [], []
    for start in (2, 8):
        model = models.from_config(config)
        model.init_weights(torch.Generator().manual_seed(0))
        task = pretraining_task(
            StagedWindows(windows),
            micro_batch=start,
            seed=0,
            device=torch.device("cpu"),
            on_halved=halved.append,
        )
        loop = Trainer(
            model,
            adamw.build([Group("vectors", list(model.parameters()))], adamw.Config(lr=0.01)),
            dataclasses.replace(task, loss_fn=small_device),
            Limits(steps=4),
            LoopSettings(),
            ScheduleSettings(name="constant", warmup_steps=0),
            GuardSettings(),
        )
        loop.run(on_step=lambda report: None, on_eval=lambda: 1.0, on_pause=lambda: None, stop_requested=lambda: False)
        ends.append(model.state_dict())
    assert halved == [4, 2]
    for name, weight in ends[0].items():
        assert torch.equal(weight, ends[1][name])


def test_memory_that_never_suffices_is_an_error() -> None:
    def never(model: nn.Module, batch: MicroBatch) -> Tensor:
        raise torch.OutOfMemoryError("no memory at all")

    loop = trainer(lambda step: [1.0] * 2)
    loop.task = dataclasses.replace(loop.task, loss_fn=never)
    with pytest.raises(torch.OutOfMemoryError):
        run(loop)
