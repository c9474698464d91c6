"""Schedules against closed formulas; plateau and weight averages against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from inkling.optim._ema import WeightAverage
from inkling.optim._schedule import Plateau, ScheduleSettings, multiplier


@pytest.mark.parametrize(
    ("name", "progress", "expected"),
    [
        ("trapezoid", 0.0, 1.0),
        ("trapezoid", 0.6, 1.0),
        ("trapezoid", 0.8, 0.1 + 0.9 * 0.5),
        ("trapezoid", 1.0, 0.1),
        ("linear", 0.25, 0.1 + 0.9 * 0.75),
        ("cosine", 0.5, 0.1 + 0.9 * 0.5),
        ("cosine", 1 / 3, 0.1 + 0.9 * 0.75),
        ("constant", 0.9, 1.0),
        ("plateau", 0.9, 1.0),
    ],
)
def test_shapes(name: str, progress: float, expected: float) -> None:
    schedule = ScheduleSettings(name=name, warmup_steps=0, cooldown=0.4, final=0.1)  # type: ignore[arg-type]
    assert multiplier(schedule, 10**6, progress) == pytest.approx(expected, abs=1e-12)


def test_warmup_rises_linearly_and_reaches_the_peak() -> None:
    schedule = ScheduleSettings(name="constant", warmup_steps=4)
    assert [multiplier(schedule, step, 0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_plateau_halves_after_two_bad_evaluations_and_survives_a_restart() -> None:
    schedule = ScheduleSettings(name="plateau", plateau_patience=2)
    plateau = Plateau(schedule)
    for loss in (3.0, 2.0, 2.5):
        plateau.update(loss)
    assert plateau.factor == 1.0
    again = Plateau(schedule)
    again.restore(plateau.state())
    again.update(2.0)
    assert again.factor == 0.5
    again.update(1.0)
    assert again.factor == 0.5


def test_average_follows_its_formula_and_survives_a_restart() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().clone()
    for n in range(1, 9):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        if n == 4:
            stored = {name: tensor.clone() for name, tensor in average.state().items()}
            average = WeightAverage(model, 0.5)
            average.restore(stored)
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.weights()["weight"], expected, atol=1e-6, rtol=1e-5)


def test_applied_puts_the_average_in_and_takes_it_out() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.fill_(math.pi)
    with average.applied(model):
        assert torch.equal(model.weight, start)
    assert (model.weight == math.pi).all()
