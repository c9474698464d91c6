"""Named groups of settings that were run and measured; the results are in `bench/results/`."""

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
        "model": {"dropout": 0.05},
        "log": {"eval_tokens": 1_000_000},
    },
}
