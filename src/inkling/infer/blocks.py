"""Blocks of key-value slots: who has which, and which hold the beginnings of prompts that others may share.

vLLM's design (Kwon et al. 2023, arXiv 2309.06180): a sequence has a table of blocks; full blocks of prompts are known
by a hash of all tokens up to their end, and stay after their sequence until the room is needed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

BLOCK = 64
"""Slots of a block."""


class BlockPool:
    """A number of blocks, handed out and taken back.

    Args:
        num_blocks: Blocks in all.

    Attributes:
        num_hits: Tokens of prompts that were found instead of computed.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_hits = 0
        self._users = [0] * num_blocks
        self._free = set(range(num_blocks))
        self._unused: OrderedDict[int, None] = OrderedDict()  # shared beginnings without users, longest unused first
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out."""
        return len(self._free) + len(self._unused)

    @property
    def num_used(self) -> int:
        """Blocks that sequences have."""
        return self.num_blocks - self.num_available

    def take(self, after: int | None = None) -> int | None:
        """A block, the one that lies behind `after` if it can be had; None when there is none."""
        wanted = None if after is None else after + 1
        if wanted is not None and wanted in self._free:
            block = wanted
        elif self._free:
            block = min(self._free)
        elif self._unused:
            block = self._unused.popitem(last=False)[0]
            self._forget(block)
            self._free.add(block)
        else:
            return None
        self._free.discard(block)
        self._users[block] = 1
        return block

    def give_back(self, blocks: Sequence[int]) -> None:
        """A sequence needs these no more."""
        for block in blocks:
            self._users[block] -= 1
            assert self._users[block] >= 0, "a block was given back twice"
            if not self._users[block]:
                if block in self._hash_of:
                    self._unused[block] = None
                else:
                    self._free.add(block)

    # ------------------------------------------------------------ shared beginnings

    def find(self, token_ids: Sequence[int], salt: bytes = b"") -> list[int]:
        """The blocks that hold the longest known beginning of a prompt; the caller is their user from now on.

        At least one token is left to compute: its output is what comes next.

        Args:
            salt: Beginnings are shared only among those who give the same one.
        """
        found = []
        for key in hashes(token_ids[: len(token_ids) - 1], salt):
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        for block in found:
            self._users[block] += 1
            self._unused.pop(block, None)
        self.num_hits += len(found) * BLOCK
        return found

    def publish(self, token_ids: Sequence[int], blocks: Sequence[int], salt: bytes = b"") -> None:
        """Let others find the full blocks of a prompt, which now hold its keys and values."""
        for key, block in zip(hashes(token_ids, salt), blocks, strict=False):
            if block >= 0 and key not in self._block_of and block not in self._hash_of:
                self._block_of[key], self._hash_of[block] = block, key

    def _forget(self, block: int) -> None:
        del self._block_of[self._hash_of.pop(block)]


def hashes(token_ids: Sequence[int], salt: bytes) -> list[bytes]:
    """For each full block of tokens, a hash of all tokens up to its end."""
    digest, found = hashlib.sha256(salt).digest(), []
    ids = np.asarray(token_ids, np.int64)
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        digest = hashlib.sha256(digest + ids[end - BLOCK : end].tobytes()).digest()
        found.append(digest)
    return found
