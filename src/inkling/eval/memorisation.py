"""Whether a model says its training text by heart (Carlini et al. 2022, arXiv:2202.07646)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inkling.eval.statistics import Estimate, share

PROMPT_TOKENS = 50
ANSWER_TOKENS = 50


class Tokens(Protocol):
    """A text in tokens."""

    num_tokens: int

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Some of it."""


@dataclass(frozen=True)
class Memorised:
    """Attributes:
    whole: Share of sequences that are said word for word.
    mean_right: Tokens that are right before the first wrong one, in the mean.
    """

    whole: Estimate
    mean_right: float


def memorised(
    text: Tokens,
    go_on: Callable[[Sequence[list[int]], int], list[list[int]]],
    *,
    count: int,
    seed: int = 0,
    prompt_tokens: int = PROMPT_TOKENS,
    answer_tokens: int = ANSWER_TOKENS,
) -> Memorised | None:
    """How much of a text follows when its beginnings are given; None for a text that is too short.

    Args:
        go_on: Writes so many of the likeliest tokens after each prompt.
        count: Sequences, drawn from all places.
    """
    length = prompt_tokens + answer_tokens
    if text.num_tokens < 2 * length:
        return None
    draw = np.random.default_rng(seed)
    starts = draw.integers(0, text.num_tokens - length, count)
    sequences = [text.tokens(start, start + length).tolist() for start in starts.tolist()]
    answers = go_on([sequence[:prompt_tokens] for sequence in sequences], answer_tokens)
    right = []
    for sequence, answer in zip(sequences, answers, strict=True):
        wanted = sequence[prompt_tokens:]
        wrong = (place for place, token in enumerate(wanted) if answer[place : place + 1] != [token])
        right.append(next(wrong, len(wanted)))
    return Memorised(share(sum(one == answer_tokens for one in right), count), sum(right) / count)
