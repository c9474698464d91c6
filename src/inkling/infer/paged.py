"""Keys and values in blocks, and one step of many sequences over them.

Shapes: L layers, N blocks, H query heads, K key-value heads, D head size, T new tokens of all sequences, S slots seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.infer.blocks import BLOCK
from inkling.models import PLAIN, ModelConfig, PlacedTokens, Scoring, attend


class PagedMemory:
    """The keys and values of all sequences, (L, N, 64, K, D) each.

    Attributes:
        window: Tokens that a new one can see in any layer, itself included; None: all.
    """

    def __init__(self, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        heads, key_dim, value_dim = config.cache_shape
        shape = (config.num_hidden_layers, num_blocks, BLOCK, heads)
        self.keys = torch.zeros(*shape, key_dim, dtype=dtype, device=device)
        self.values = torch.zeros(*shape, value_dim, dtype=dtype, device=device)
        self._rows: dict[str, Tensor] = {}
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        self.window = None if None in windows else max(window for window in windows if window is not None)

    def rows(self, name: str, like: Tensor) -> Tensor:
        """What else a model keeps of each token, under a name, (N, 64, C); like (…, C)."""
        if name not in self._rows:
            with torch.inference_mode(mode=False):  # as the others are, which are filled outside a pass too
                self._rows[name] = like.new_zeros(*self.keys.shape[1:3], like.shape[-1])
        return self._rows[name]

    def copy_out(self, blocks: Sequence[int]) -> list[Tensor]:
        """What blocks hold, for a sequence that has to make room; the number of blocks is the second dimension."""
        index = torch.tensor(blocks, device=self.keys.device)
        return [self.keys[:, index], self.values[:, index], *(rows[None, index] for rows in self._rows.values())]

    def copy_in(self, blocks: Sequence[int], held: Sequence[Tensor]) -> None:
        """Put it back, into other blocks."""
        index = torch.tensor(blocks, device=self.keys.device)
        places = (self.keys, self.values, *(rows[None] for rows in self._rows.values()))
        for memory, kept in zip(places, held, strict=True):
            memory[:, index] = kept


@dataclass(frozen=True)
class Piece:
    """New tokens of one sequence in a step, which attend together.

    Attributes:
        start: Place of the first in its sequence.
        count: New tokens.
        blocks: Of its sequence.
    """

    start: int
    count: int
    blocks: list[int]

    @property
    def end(self) -> int:
        """Tokens of the sequence once these are in."""
        return self.start + self.count


class PagedStep(PlacedTokens):
    """The cache of one step: the new tokens of all sequences as one row, (1, T).

    Each piece attends to its own sequence alone, in shapes that no neighbour changes.

    Args:
        pieces: In the order of the row.
        num_padding: Tokens at the end of the row that belong to no one; they are stored nowhere.
    """

    def __init__(self, memory: PagedMemory, pieces: Sequence[Piece], num_padding: int) -> None:
        self._memory = memory
        self._pieces = pieces
        self._num_padding = num_padding
        device = memory.keys.device
        places = [torch.arange(piece.start, piece.end) for piece in pieces]
        super().__init__(torch.cat([*places, torch.zeros(num_padding, dtype=torch.long)]).to(device))
        self._new_slots = torch.cat([_slots(piece, 0) for piece in pieces]).to(device)
        self._masks = {
            (piece.count, piece.end): _mask(piece).to(device) for piece in pieces if 1 < piece.count < piece.end
        }

    def attend(
        self,
        layer: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scoring: Scoring = PLAIN,
    ) -> Tensor:
        """Store new keys and values, (1, K, T, D), and attend piece by piece: (1, H, T, D) -> (1, T, H·D)."""
        num_new = len(self._new_slots)
        stored = self._memory.keys[layer], self._memory.values[layer]  # (N, 64, K, D) each
        for memory, new in zip(stored, (keys, values), strict=True):
            memory.view(-1, *memory.shape[2:])[self._new_slots] = new[0, :, :num_new].transpose(0, 1).to(memory.dtype)
        outputs, at = [], 0
        for piece in self._pieces:
            first = 0 if scoring.window is None else max(0, piece.start + 1 - scoring.window) // BLOCK
            keys, values = (self._seen(memory, piece, first).to(queries.dtype) for memory in stored)
            part = queries[:, :, at : at + piece.count]
            own = self._masks.get((piece.count, piece.end))
            outputs.append(attend(part, keys, values, None if own is None else own[:, first * BLOCK :], scoring))
            at += piece.count
        if self._num_padding:
            outputs.append(queries.new_zeros(1, self._num_padding, outputs[0].shape[-1]))
        return torch.cat(outputs, dim=1)

    def earlier(self, name: str, x: Tensor, count: int) -> list[Tensor]:
        """Store `x`, (1, T, C), and find what stood 1 to `count` tokens before each in its sequence, (1, T, C) each."""
        rows = self._memory.rows(name, x).flatten(0, 1)  # (N · 64, C)
        rows[self._new_slots] = x[0, : len(self._new_slots)]
        found = []
        for lag in range(1, count + 1):
            slots = torch.cat([_slots(piece, lag) for piece in self._pieces]).to(x.device)
            before = rows[slots] * (slots >= 0)[:, None]
            found.append(F.pad(before, (0, 0, 0, self._num_padding))[None])
        return found

    @staticmethod
    def _seen(memory: Tensor, piece: Piece, first: int) -> Tensor:
        """Keys or values from block `first` of a sequence on, (1, K, S, D), in place where blocks lie side by side."""
        blocks = piece.blocks[first : -(-piece.end // BLOCK)]
        if blocks[-1] - blocks[0] == len(blocks) - 1 and blocks == list(range(blocks[0], blocks[-1] + 1)):
            together = memory[blocks[0] : blocks[-1] + 1]
        else:
            together = memory[torch.tensor(blocks, device=memory.device)]
        return together.flatten(0, 1)[: piece.end - first * BLOCK].transpose(0, 1)[None]


def _slots(piece: Piece, lag: int) -> Tensor:
    """Where what is so many tokens before each new one is kept, (T); -1: its sequence had not begun."""
    places = torch.arange(piece.start - lag, piece.end - lag)
    return torch.where(places >= 0, torch.tensor(piece.blocks)[places // BLOCK] * BLOCK + places % BLOCK, -1)


def _mask(piece: Piece) -> Tensor:
    """Which slots each new token sees, (T, S): those up to its own."""
    return torch.arange(piece.end)[None] <= torch.arange(piece.start, piece.end)[:, None]
