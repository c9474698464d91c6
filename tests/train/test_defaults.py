"""What a run does when little is said: each rule where it changes its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_resume import TINY, settings, train

from inkling import checkpoint
from inkling.train.defaults import MIN_STEPS, Horizon, choose_horizon, choose_regime, choose_weight_decay


def horizon(**more: Any) -> Horizon:
    values: dict[str, Any] = {
        "num_parameters": 800_000,
        "num_tokens": 1_000_000,
        "context": 256,
        "batch_size": None,
        "steps": None,
        "time_s": None,
        "tokens_per_s": None,
        "muon_share": lambda tokens: 2000 / tokens,
    }
    return choose_horizon(**{**values, **more})


def test_few_steps_are_the_beginning_of_a_run_and_not_a_few_huge_ones() -> None:
    usual = horizon()
    few, many = horizon(steps=30), horizon(steps=8 * MIN_STEPS)
    assert few.batch_size == usual.batch_size
    assert few.tokens == 30 * few.batch_size * 256
    assert many.batch_size < usual.batch_size


def test_batches_that_grow_make_more_steps_of_the_same_tokens() -> None:
    whole, growing = horizon(), horizon(mean_share=0.5)
    assert growing.batch_size == whole.batch_size
    assert growing.steps == pytest.approx(2 * (whole.steps or 0), abs=1)
    assert growing.passes == pytest.approx(whole.passes, rel=1e-3)
    assert horizon(steps=100, batch_size=4, mean_share=0.5).tokens == 100 * 4 * 256 / 2


def test_the_regime_follows_from_the_passes_and_what_is_given_stays() -> None:
    given: dict[str, Any] = {"dropout": None, "average_decay": None, "patience": None}
    once, often = (choose_regime(passes, **given) for passes in (1.0, 16.0))
    assert (once.dropout, once.average_decay, once.patience) == (0.0, 0.0, 0)
    assert (often.dropout, often.average_decay, often.patience) == (0.1, 0.99, 5)
    assert "many passes (16)" in often.reasons[0]
    asked = choose_regime(16.0, dropout=0.0, average_decay=0.5, patience=0)
    assert (asked.dropout, asked.average_decay, asked.patience) == (0.0, 0.5, 0)
    assert all(reason.endswith("as asked") for reason in asked.reasons)


@pytest.mark.parametrize(
    ("passes", "per_token", "asked", "decay"),
    [(8.0, 20.0, None, 1.2), (8.0, 3.5, None, 0.1), (1.0, 20.0, None, 0.1), (8.0, 20.0, 0.3, 0.3)],
)
def test_a_model_that_could_know_its_text_by_heart_decays_faster(
    passes: float, per_token: float, asked: float | None, decay: float
) -> None:
    assert choose_weight_decay(passes, per_token, asked)[0] == decay


def test_a_small_text_read_often_is_trained_in_that_regime_and_goes_on_in_it(data_folder: Path, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"average": {}, "model": TINY, "batch_size": 128, "steps": 40, "loop": {"eval_every": 40}}
    run = train(settings(data_folder, tmp_path / "run", optimizer="muon", **wanted))
    choices = checkpoint.read_run(run).choices
    assert choices["dropout"] == 0.1
    assert (choices["average_decay"], choices["patience"], choices["weight_decay"]) == (0.99, 5, 0.1)
    assert any("many passes" in reason for reason in choices["reasons"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum("val_loss_average" in row for row in rows) == 1
