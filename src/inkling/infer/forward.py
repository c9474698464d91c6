"""The model's part of a step: logits after new tokens of many sequences, in compiled code or in torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from inkling import peft
from inkling.infer.completing import Completing
from inkling.infer.native import NativeStep, Span
from inkling.infer.paged import PagedMemory, PagedStep, Piece
from inkling.models import LanguageModel, SeeingModel
from inkling.quantize import unpacks

Pieces = Sequence[tuple[Completing, Piece]]

_ROWS = 16
"""Rows that torch computes are filled up with padding to a multiple of this: from so many on, a row's bits do not
depend on their number (on some processors from 4 on), and fewer shapes mean fewer kernels that are made and kept."""
_FEW_ROWS = 32
_MANY_ROWS = 64


class TiledProducts(TorchFunctionMode):
    """Linear layers in bf16, computed in tiles of so many rows.

    For processors with AMX: from width 512 on, oneDNN takes one kernel for up to 32 rows, another for more, and a third
    for some hundreds, which round differently.

    Args:
        filled: Fill the last tile up with zeros. Not needed up to 32 rows, which all have the same bits.
    """

    def __init__(self, num_rows: int, *, filled: bool) -> None:
        super().__init__()
        self._num_rows = num_rows
        self._filled = filled

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Any function; linear layers in tiles."""
        if func is not F.linear or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        x, *rest = args
        rows = flat = x.flatten(0, -2)  # (…, K) -> (R, K)
        if self._filled:
            rows = F.pad(flat, (0, 0, 0, -len(flat) % self._num_rows))
        products = [F.linear(tile, *rest, **(kwargs or {})) for tile in rows.split(self._num_rows)]
        return torch.cat(products)[: len(flat)].view(*x.shape[:-1], -1)


class Forward:
    """Logits of a model over a memory.

    Args:
        native: The compiled step, if there is one.
    """

    def __init__(self, model: LanguageModel, memory: PagedMemory, native: NativeStep | None) -> None:
        self._model = model
        self._memory = memory
        self._native = native
        has_amx = model.device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        self._in_tiles = has_amx and (model.dtype == torch.bfloat16 or unpacks(model))
        self._has_experts = model.idle_parameters() > 0  # which each see some of the rows

    def __call__(self, pieces: Pieces) -> Iterator[Tensor]:
        """Logits after each piece's last token, (1, V), or after each of its tokens where they are asked for."""
        ways = [self._way(one, piece) for one, piece in pieces]
        rows: dict[Any, Iterator[Tensor]] = {}
        for way in dict.fromkeys(ways):
            part = [pair for pair, its in zip(pieces, ways, strict=True) if its == way]
            wanted = [_wanted(one, piece) for one, piece in part]
            firsts = itertools.accumulate((piece.count for _, piece in part), initial=0)
            places = [first + place for first, own in zip(firsts, wanted, strict=False) for place in own]
            run, _ = way
            rows[way] = iter(torch.split(run(part, places), [len(own) for own in wanted]))
        return (next(rows[way]) for way in ways)

    def _way(self, one: Completing, piece: Piece) -> tuple[Any, str | None]:
        """In compiled code where there is any, but for adapters and for prompts that torch computes faster.

        What has the same way is computed together; beside experts, each adapter by itself.
        """
        in_prompt = piece.start < len(one.prompt_ids)
        if self._native is not None and one.adapter is None and (self._native.suits_prompts or not in_prompt):
            return self._natively, None
        run = self._prompts_in_torch if self._in_tiles and in_prompt else self._in_torch
        return run, one.adapter if self._has_experts else None

    def _natively(self, pieces: Pieces, wanted: Sequence[int]) -> Tensor:
        """Logits (len(wanted), V) after some of the new tokens."""
        assert self._native is not None
        return self._native([Span(_ids(one, piece), piece.start, piece.blocks) for one, piece in pieces], wanted)

    def _prompts_in_torch(self, pieces: Pieces, wanted: Sequence[int]) -> Tensor:
        """The same in larger tiles, which take less time; never together with answers."""
        return self._in_torch(pieces, wanted, TiledProducts(_MANY_ROWS, filled=True))

    @torch.inference_mode()
    def _in_torch(self, pieces: Pieces, wanted: Sequence[int], tiles: TiledProducts | None = None) -> Tensor:
        """The same."""
        ids = [token for sequence, piece in pieces for token in _ids(sequence, piece)]
        num_padding = -len(ids) % _ROWS
        device = self._model.device
        row = torch.tensor([ids + [0] * num_padding], device=device)
        step = PagedStep(self._memory, [piece for _, piece in pieces], num_padding)
        adapters = pieces[0][0].adapter if self._has_experts else _rows_of_adapters(pieces, device)
        with peft.selected(self._model, adapters) if adapters else nullcontext(), tiles or self._few(len(ids)):
            parts = [sequence.seen(piece.start, piece.end) for sequence, piece in pieces if sequence.in_prompt]
            seen = [part for part in parts if part is not None]
            if seen:
                assert isinstance(self._model, SeeingModel)
                hidden = self._model.hidden(row, cache=step, seen=torch.cat(seen))[0]
            else:
                hidden = self._model.hidden(row, cache=step)[0]  # (1, T) -> (T, C)
        if not wanted:
            return torch.empty(0, 0)
        padded = [*wanted, *[0] * (-len(wanted) % _ROWS)]
        with self._few(len(padded)):
            return self._model.logits(hidden[torch.tensor(padded, device=device)])[: len(wanted)].cpu()

    def _few(self, num_rows: int) -> AbstractContextManager[object]:
        """Tiles of few rows, where there are more: each torch function that passes through them costs some time."""
        return TiledProducts(_FEW_ROWS, filled=False) if self._in_tiles and num_rows > _FEW_ROWS else nullcontext()


def _ids(sequence: Completing, piece: Piece) -> list[int]:
    """The new tokens."""
    if piece.start < len(sequence.prompt_ids):
        return sequence.prompt_ids[piece.start : piece.end]
    return [sequence.token_ids[-1], *sequence.guesses]


def _wanted(sequence: Completing, piece: Piece) -> range:
    """Places in a piece after which logits are asked for."""
    in_prompt = piece.start < len(sequence.prompt_ids)
    if sequence.wants_prompt_logprobs if in_prompt else bool(sequence.guesses):
        return range(piece.count)
    unfinished = in_prompt and piece.end < len(sequence.prompt_ids)
    return range(piece.count, piece.count) if unfinished else range(piece.count - 1, piece.count)


def _rows_of_adapters(pieces: Pieces, device: torch.device) -> list[tuple[str, Tensor]]:
    """Which rows each adapter writes; filled up with rows of their own, so that no bits depend on their number."""
    rows: dict[str, list[int]] = {}
    at = 0
    for sequence, piece in pieces:
        if sequence.adapter is not None:
            rows.setdefault(sequence.adapter, []).extend(range(at, at + piece.count))
        at += piece.count
    return [(name, torch.tensor(of + of[:1] * (-len(of) % _ROWS), device=device)) for name, of in rows.items()]
