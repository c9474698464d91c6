"""Named groups of settings that were run and measured: results in `bench/results/`, curves in reference_curves.json."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # Character-level Shakespeare on two cores within five minutes: docs/decisions/2026-11-20-shakespeare-recipe.md
    "shakespeare-char": {
        "size": "0.8m",
        "context": 256,
        "batch_size": 16,
        "time": "200s",
        "optimizer": "muon",
        "muon": {"weight_decay": 0.1},
        "average": {"decay": 0},
        "loop": {"patience": 0},
        "model": {"dropout": 0.05},
        "log": {"eval_tokens": 1_000_000},
    },
    # The lowest loss on it within ten minutes of two cores: docs/decisions/2026-11-21-speedrun.md
    "shakespeare-best": {
        "arch": "speedrun",
        "size": "0.8m",
        "context": 256,
        "batch_size": 16,
        "time": "480s",
        "optimizer": "muon",
        "muon": {"weight_decay": 0.1},
        "average": {"decay": 0},
        "loop": {"patience": 0},
        "model": {"hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 512, "dropout": 0.15},
        "machine": {"compile": "no"},
        "log": {"eval_tokens": 1_000_000, "samples": False},
    },
}
