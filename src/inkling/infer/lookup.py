"""Guesses at what comes next: what followed when the same three tokens stood there before (prompt lookup).

Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding. The engine computes guesses beside the next token
and keeps those that it would have drawn anyway, so that a text is the same with and without them.
"""

from __future__ import annotations

from collections.abc import Sequence

_LENGTH = 3
_LEAST_SHARE = 0.25
"""Guesses stop when fewer than this share of the recent ones are right."""
_MEMORY = 0.9
_PAUSE = 32
"""Tokens until it is tried again."""


class Lookup:
    """Remembers where each run of three tokens stood last.

    Args:
        token_ids: The prompt.
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._share = 1.0
        self._pause = 0
        for token_id in token_ids:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        """The next token."""
        if len(self._ids) >= _LENGTH:
            self._after[tuple(self._ids[-_LENGTH:])] = len(self._ids)
        self._ids.append(token_id)
        self._pause = max(0, self._pause - 1)

    def guess(self, count: int) -> list[int]:
        """Up to so many tokens that may follow."""
        if self._pause or len(self._ids) < _LENGTH:
            return []
        start = self._after.get(tuple(self._ids[-_LENGTH:]))
        return [] if start is None else self._ids[start : start + count]

    def learn(self, num_guessed: int, num_right: int) -> None:
        """How good a guess was."""
        self._share = _MEMORY * self._share + (1 - _MEMORY) * num_right / num_guessed
        if self._share < _LEAST_SHARE:
            self._share, self._pause = 1.0, _PAUSE
