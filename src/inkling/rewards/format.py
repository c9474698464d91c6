"""An answer in the form that was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

WHAT = (
    "1 where the whole answer matches the field pattern, a regular expression; without one, an <answer> tag is wanted"
)
_TAGS = r"(?s).*<answer>[^<]+</answer>\s*"


def reward(
    prompts: Sequence[str], completions: Sequence[str], pattern: Sequence[str | None] | None = None
) -> list[float]:
    """1 for each answer in its form, else 0. Raises ValueError for a pattern that is none."""
    patterns = [None] * len(completions) if pattern is None else pattern
    return [
        1.0 if re.fullmatch(one or _TAGS, completion) else 0.0
        for completion, one in zip(completions, patterns, strict=True)
    ]
