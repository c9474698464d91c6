"""The next tokens of several completions at once, and how many of them are written in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from inkling.infer.completing import Completing
from inkling.infer.native import NativeStep, PlainDraw
from inkling.infer.sampling import NOT_FINITE, next_tokens

_MOST_AHEAD = 16
_AHEAD_S = 0.03


class Ahead:
    """How many tokens are written before anyone is told: as many as come in 30 ms, which no reader sees.

    In that time nothing begins and nothing is stopped. What a step costs in Python, and news on their way through the
    network, is shared by them.
    """

    def __init__(self) -> None:
        self._token_s = _AHEAD_S / 4

    @property
    def count(self) -> int:
        """Tokens."""
        return max(1, min(_MOST_AHEAD, int(_AHEAD_S / self._token_s)))

    def learn(self, seconds: float, num_tokens: int) -> None:
        """How long so many took."""
        self._token_s = max(1e-6, seconds / num_tokens)


def plain_draw(sequence: Completing, limit: int = 1) -> PlainDraw:
    """How a completion that `is_plain` draws up to `limit` tokens."""
    return PlainDraw(
        sequence.seed, len(sequence.token_ids), sequence.params.temperature, limit, sorted(sequence.end_ids)
    )


def take_written(sequence: Completing, token_ids: Sequence[int]) -> None:
    """Give tokens that were written in one go to their sequence; -1 is one that could not be drawn."""
    known = [number for number in token_ids if number >= 0]
    if known:
        _alone(sequence, partial(sequence.take_all, known))
    if len(known) < len(token_ids) and sequence.finish_reason is None:
        sequence.fail(NOT_FINITE)


def _alone(sequence: Completing, act: Callable[[], None]) -> None:
    """Do something for a completion; what fails for one fails alone."""
    try:
        act()
    except Exception as error:
        sequence.fail(" ".join(str(error).split()) or type(error).__name__)


def take_drawn(native: NativeStep | None, drawing: Sequence[tuple[Completing, Tensor]]) -> None:
    """Draw the next token of each sequence from its logits (V,), and give it to it."""
    ready: list[tuple[Completing, Tensor, Tensor]] = []
    for sequence, logits in drawing:
        _alone(sequence, partial(_make_ready, ready, sequence, logits))
    for (sequence, logits, _), token_id in zip(ready, _drawn(native, ready), strict=True):
        if token_id is None:
            sequence.fail(NOT_FINITE)
        else:
            _alone(sequence, partial(sequence.take, token_id, logits))


def _make_ready(ready: list[tuple[Completing, Tensor, Tensor]], sequence: Completing, logits: Tensor) -> None:
    ready.append((sequence, logits, sequence.allowed(logits)))


def _drawn(native: NativeStep | None, ready: Sequence[tuple[Completing, Tensor, Tensor]]) -> list[int | None]:
    """Plain draws in compiled code, where there is any: a completion's draws are all made in the same way."""
    plain = [n for n, (sequence, _, _) in enumerate(ready) if native is not None and sequence.is_plain]
    others = [n for n in range(len(ready)) if n not in plain]
    found: list[int | None] = [None] * len(ready)
    if native is not None and plain:
        rows = torch.stack([ready[n][2].float() for n in plain])
        for n, number in zip(plain, native.draw(rows, [plain_draw(ready[n][0]) for n in plain]), strict=True):
            found[n] = None if number < 0 else number
    if others:
        rows = torch.stack([ready[n][2] for n in others])
        for n, token_id in zip(others, next_tokens(rows, [ready[n][0].next_draw for n in others]), strict=True):
            found[n] = token_id
    return found
