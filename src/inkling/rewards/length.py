"""Short answers."""

from __future__ import annotations

from collections.abc import Sequence

WHAT = "1 up to the characters of the field max_length (200 without it), falling to 0 at twice as many"
_DEFAULT = 200


def reward(
    prompts: Sequence[str], completions: Sequence[str], max_length: Sequence[int | None] | None = None
) -> list[float]:
    """From 0 to 1."""
    limits = [None] * len(completions) if max_length is None else max_length
    return [
        min(1.0, max(0.0, 2 - len(completion) / (limit or _DEFAULT)))
        for completion, limit in zip(completions, limits, strict=True)
    ]
