"""Blocks of sequences: given, copied out and back, and taken away."""

from __future__ import annotations

from torch import Tensor

from inkling.infer.blocks import BLOCK, BlockPool
from inkling.infer.completing import Completing
from inkling.infer.paged import PagedMemory

_PASSED = -1
"""In the place of a block that no token will look at again."""


class Room:
    """The blocks of a memory, and the sequences that have them."""

    def __init__(self, pool: BlockPool, memory: PagedMemory) -> None:
        self._pool = pool
        self._memory = memory

    def extend(self, sequence: Completing, num_tokens: int) -> bool:
        """Blocks for so many tokens; all or none."""
        missing = _missing(sequence, num_tokens)
        if missing > self._pool.num_available:
            return False
        for _ in range(missing):
            block = self._pool.take(after=sequence.blocks[-1] if sequence.blocks else None)
            assert block is not None
            sequence.blocks.append(block)
        return True

    def extend_all(self, sequences: dict[Completing, int]) -> bool:
        """The same for several; all of them or none."""
        if sum(_missing(one, num_tokens) for one, num_tokens in sequences.items()) > self._pool.num_available:
            return False
        return all(self.extend(one, num_tokens) for one, num_tokens in sequences.items())

    def release(self, sequence: Completing) -> None:
        """Take its blocks away."""
        self._pool.give_back([block for block in sequence.blocks if block != _PASSED])
        sequence.blocks = []

    def let_go(self, sequence: Completing) -> None:
        """Take away the blocks that have left all windows."""
        if self._memory.window is None:
            return
        for place in range(max(0, sequence.num_computed + 1 - self._memory.window) // BLOCK):
            if sequence.blocks[place] != _PASSED:
                self._pool.give_back([sequence.blocks[place]])
                sequence.blocks[place] = _PASSED

    def held(self, sequence: Completing) -> tuple[int, list[Tensor]]:
        """Copies of what a sequence has: how many of its blocks are passed, and what the others hold."""
        num_passed = sequence.blocks.count(_PASSED)
        return num_passed, self._memory.copy_out(sequence.blocks[num_passed:])

    def bring_back(self, sequence: Completing) -> bool:
        """Blocks for a sequence that was copied out, and what they held; False when there are too few."""
        assert sequence.held is not None
        num_passed, kept = sequence.held
        sequence.blocks = [_PASSED] * num_passed
        if not self.extend(sequence, sequence.num_computed + 1):
            sequence.blocks = []
            return False
        self._memory.copy_in(sequence.blocks[num_passed : num_passed + kept[0].shape[1]], kept)
        sequence.held = None
        return True


def _missing(sequence: Completing, num_tokens: int) -> int:
    return max(0, -(-num_tokens // BLOCK) - len(sequence.blocks))
