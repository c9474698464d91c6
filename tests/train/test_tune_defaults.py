"""What tuning computes when little is said, pinned: a default that changes a number changes here too."""

from __future__ import annotations

from typing import Any

import pytest

from inkling.train.tune_settings import TuneSettings

PINNED: dict[str, dict[str, Any]] = {
    "preference": {
        "beta": None, "loss": "sigmoid", "label_smoothing": 0.0, "length_normalised": False, "sft_weight": None,
        "margin": 0.5, "bad_weight": 1.0, "reference": "precomputed",
    },
    "rl": {
        "rewards": [], "group_size": 8, "max_tokens": 64, "temperature": 1.0, "top_k": 0, "updates": 1,
        "clip_low": 0.2, "clip_high": 0.28, "mean": "tokens", "by_spread": True, "kl": 0.0, "kl_target": None,
        "learn_truncated": True, "eval_prompts": 100, "discount": 1.0, "decay": 0.95, "value_weight": 0.5,
        "accept_hackable": False,
    },
    "reward": {"centering": 0.01},
    "distill": {"teacher": None, "top_k": 32, "temperature": 1.0, "weight": 0.9, "logits": "live"},
    "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": ["all"], "rank_stabilised": False, "dora": False},
    "adamw": {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0},
    "muon": {
        "lr": 0.01, "momentum": 0.95, "momentum_warmup": 100, "weight_decay": 0.1, "embedding_lr": 0.005,
        "head_lr": 0.002, "vector_lr": 0.002, "beta1": 0.8, "beta2": 0.95, "eps": 1e-10, "orthogonalize_in": "auto",
    },
}  # fmt: skip


@pytest.mark.parametrize("section", PINNED)
def test_sections(section: str) -> None:
    found = getattr(TuneSettings.model_validate({"start_from": "run", "data": "rows.jsonl"}), section)
    assert found.model_dump() == PINNED[section]


@pytest.mark.parametrize(
    ("method", "beta", "sft_weight"), [("dpo", 0.1, 1.0), ("orpo", 0.1, 1.0), ("simpo", 2.0, 1.0), ("kto", 0.1, 0.0)]
)
def test_preferences_by_method(method: str, beta: float, sft_weight: float) -> None:
    found = TuneSettings.model_validate({"start_from": "run", "data": "rows.jsonl", "method": method}).preference
    assert (found.beta_of(method), found.sft_weight_of(method)) == (beta, sft_weight)
