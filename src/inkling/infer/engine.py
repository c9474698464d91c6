"""Many completions at once: one `step` schedules, runs the model, and draws the next tokens.

A request's text depends on its prompt, its parameters and its seed, and not on what else is computed: see
`docs/decisions/2026-11-21-serving.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from inkling import peft
from inkling.errors import ModelError
from inkling.infer.blocks import BLOCK, BlockPool
from inkling.infer.completing import Completing
from inkling.infer.native import NativeStep, UnavailableError
from inkling.infer.paged import PagedMemory, PagedStep, Piece
from inkling.infer.sampling import NOT_FINITE, next_tokens
from inkling.models import LanguageModel, SeeingModel
from inkling.quantize import keep_packed
from inkling.tokenizer import Tokenizer

_ROWS = 16
"""Rows of a step are filled up with padding to a multiple of this: from so many on, a row's bits do not depend on their
number (on some processors from 4 on), and fewer shapes mean fewer kernels that are made and kept."""


_PASSED = -1
"""In the place of a block that no token will look at again."""


@dataclass(frozen=True)
class EngineLimits:
    """What the engine may hold at once.

    Attributes:
        max_sequences: Computed side by side.
        max_step_tokens: New tokens of a step, roughly: the pieces of prompts that one step takes.
        num_blocks: Of 64 tokens, for keys and values.
        max_guesses: Tokens looked up in the text so far and computed beside the next one, where compiled code does it
            and not more than `few_sequences` are written; 0: none.
    """

    max_sequences: int = 32
    max_step_tokens: int = 512
    num_blocks: int = 256
    max_guesses: int = 4
    few_sequences: int = 2


def can_compute(model: LanguageModel) -> bool:
    """Whether the engine has a way to compute several sequences of this model at once."""
    return model.only_attention_mixes


class Engine:
    """Completions of one model, computed together.

    Not for several threads at once: one adds, aborts and steps.

    Args:
        native: Compute answers token by token in compiled code, where that can be had.

    Attributes:
        native: The compiled step, if there is one.
        why_not_native: Why there is none.

    Raises:
        ModelError: The model cannot be computed in one row with others.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, limits: EngineLimits | None = None, *, native: bool = True
    ) -> None:
        if not can_compute(model):
            raise ModelError("speedrun looks back over earlier tokens in its own way, and is not served: use generate")
        keep_packed(model)
        self.model = model
        self.tokenizer = tokenizer
        self.limits = limits or EngineLimits()
        self.pool = BlockPool(self.limits.num_blocks)
        self.memory = PagedMemory(model.config, self.limits.num_blocks, model.dtype, model.device)
        self.waiting: deque[Completing] = deque()
        self.running: list[Completing] = []
        self.num_preempted = 0
        self.native: NativeStep | None = None
        self.why_not_native = "it was not asked for"
        if native and peft.is_in_use(model):
            self.why_not_native = "an adapter is in use"
        elif native:
            try:
                self.native = NativeStep(model, self.memory)
            except UnavailableError as reason:
                self.why_not_native = str(reason)

    def add(self, sequence: Completing, siblings: Sequence[Completing] = ()) -> None:
        """Let a completion begin as soon as there is room.

        Args:
            siblings: Others of the same prompt (and adapter), which is computed once for all of them.

        Raises:
            ModelError: One would not even fit alone.
        """
        for one in (sequence, *siblings):
            most = one.limit + len(one.prompt_ids)
            if -(-most // BLOCK) > self.limits.num_blocks:
                raise ModelError(
                    f"{most:,} tokens do not fit into the {self.limits.num_blocks * BLOCK:,} that are held"
                )
            assert one.prompt_ids == sequence.prompt_ids
        sequence.siblings = list(siblings)
        self.waiting.append(sequence)

    def abort(self, sequence: Completing) -> None:
        """Stop a completion that nobody waits for any more."""
        if sequence.finish_reason is None:
            sequence.finish_reason = "aborted"
        others = [one for one in sequence.siblings if one.finish_reason is None]
        if others:  # one of them has to compute their prompt
            sequence.siblings = []
            self.add(others[0], others[1:])
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            self._release(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    # ------------------------------------------------------------ one step

    def step(self) -> None:
        """Schedule, run, draw."""
        pieces = self._schedule()
        if not pieces:
            return
        logits = self._run(pieces)
        drawing: list[tuple[Completing, Tensor, int]] = []
        for (sequence, piece), rows in zip(pieces, logits, strict=True):
            sequence.num_computed = piece.end
            if sequence.wants_prompt_logprobs and piece.start < len(sequence.prompt_ids):
                sequence.note_prompt(rows, piece.start)
            if sequence.in_prompt:
                continue
            if piece.start < len(sequence.prompt_ids):
                self.pool.publish(sequence.prompt_ids, sequence.blocks, sequence.salt)
                drawing += [(one, rows[-1:], piece.start) for one in self._begin_siblings(sequence)]
            drawing.append((sequence, rows if sequence.guesses else rows[-1:], piece.start))
        self._draw(drawing)
        for sequence, _ in pieces:
            self._let_go(sequence)
        for sequence in [one for one in self.running if one.finish_reason is not None]:
            self.running.remove(sequence)
            self._release(sequence)

    def _begin_siblings(self, first: Completing) -> list[Completing]:
        """Those of the same prompt: what it left behind is copied for them, and they wait for room to go on."""
        siblings, first.siblings = [one for one in first.siblings if one.finish_reason is None], []
        if siblings:
            held = self._held(first)
            for one in siblings:
                one.held, one.num_computed = held, first.num_computed
            self.waiting.extendleft(reversed(siblings))
        return siblings

    def _draw(self, drawing: list[tuple[Completing, Tensor, int]]) -> None:
        """The next tokens of each sequence, from logits (1 + guesses, V) after its last one and after each guess."""
        place = 0
        while drawing:
            self._draw_one_each([(sequence, rows[place]) for sequence, rows, _ in drawing])
            going = []
            for sequence, rows, start in drawing:
                guesses = sequence.guesses
                if place < len(guesses) and sequence.finish_reason is None and sequence.token_ids[-1] == guesses[place]:
                    going.append((sequence, rows, start))
                elif guesses:
                    sequence.num_computed = start + place + 1
                    sequence.learn(place)
            drawing = going
            place += 1

    @staticmethod
    def _draw_one_each(drawing: list[tuple[Completing, Tensor]]) -> None:
        """The next token of each sequence, from its logits (V,); what fails for one request fails alone."""
        ready, rows = [], []
        for sequence, logits in drawing:
            try:
                rows.append(sequence.allowed(logits))
                ready.append((sequence, logits))
            except Exception as error:
                sequence.fail(" ".join(str(error).split()) or type(error).__name__)
        drawn = next_tokens(torch.stack(rows), [sequence.next_draw for sequence, _ in ready]) if ready else []
        for (sequence, logits), token_id in zip(ready, drawn, strict=True):
            try:
                if token_id is None:
                    sequence.fail(NOT_FINITE)
                else:
                    sequence.take(token_id, logits)
            except Exception as error:
                sequence.fail(" ".join(str(error).split()) or type(error).__name__)

    def _schedule(self) -> list[tuple[Completing, Piece]]:
        """The pieces of this step: a token for each answer, then pieces of prompts as far as the step's size allows."""
        pieces: list[tuple[Completing, Piece]] = []
        for sequence in [one for one in self.running if not one.in_prompt]:
            if sequence in self.running and self._make_room(sequence, sequence.num_computed + 1):
                self._guess(sequence)
                pieces.append((sequence, Piece(sequence.num_computed, 1 + len(sequence.guesses), sequence.blocks)))
        pieces = [(sequence, piece) for sequence, piece in pieces if sequence in self.running]  # but for the preempted
        left = self.limits.max_step_tokens - len(pieces)
        for sequence in [one for one in self.running if one.in_prompt]:
            left -= self._take_prompt(sequence, left, pieces)
        while self.waiting and left >= BLOCK and len(self.running) < self.limits.max_sequences:
            if self.waiting[0].finish_reason is not None:  # with its first token, which it drew with its sibling
                self.waiting.popleft()
                continue
            if not self._admit(self.waiting[0]):
                break
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            if sequence.in_prompt:
                left -= self._take_prompt(sequence, left, pieces)
        return pieces

    def _guess(self, sequence: Completing) -> None:
        """Guess at what follows, where more rows cost little: for few sequences, whose weights are read anyway."""
        sequence.guesses = []
        if self.native is not None and sequence.adapter is None and len(self.running) <= self.limits.few_sequences:
            sequence.guess(self.limits.max_guesses)
            if sequence.guesses and not self._extend(sequence, sequence.num_computed + 1 + len(sequence.guesses)):
                sequence.guesses = []

    def _take_prompt(self, sequence: Completing, left: int, pieces: list[tuple[Completing, Piece]]) -> int:
        """Pieces of a prompt, cut where 64 divides the place, as many as fit into `left` tokens; how many that were."""
        start, taken = sequence.num_computed, 0
        while start < len(sequence.prompt_ids) and taken < left:
            end = min(len(sequence.prompt_ids), (start // BLOCK + 1) * BLOCK)
            pieces.append((sequence, Piece(start, end - start, sequence.blocks)))
            taken += end - start
            start = end
        return taken

    def _admit(self, sequence: Completing) -> bool:
        """Give a waiting sequence its blocks, if there are enough for its prompt and one more token."""
        if sequence.held is not None:
            return self._bring_back(sequence)
        shared = [] if sequence.wants_prompt_logprobs else self.pool.find(sequence.prompt_ids, sequence.salt)
        sequence.blocks = shared
        sequence.num_computed = sequence.num_cached = len(shared) * BLOCK
        if not self._extend(sequence, len(sequence.prompt_ids) + 1):
            self.pool.num_hits -= len(shared) * BLOCK
            self._release(sequence)
            sequence.num_computed = sequence.num_cached = 0
            return False
        return True

    def _extend(self, sequence: Completing, num_tokens: int) -> bool:
        """Blocks for so many tokens; all or none."""
        missing = -(-num_tokens // BLOCK) - len(sequence.blocks)
        if missing > self.pool.num_available:
            return False
        for _ in range(missing):
            block = self.pool.take(after=sequence.blocks[-1] if sequence.blocks else None)
            assert block is not None
            sequence.blocks.append(block)
        return True

    def _make_room(self, sequence: Completing, num_tokens: int) -> bool:
        """Blocks for a running sequence, if need be from those that came last. False when it had to go itself."""
        while not self._extend(sequence, num_tokens):
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        return True

    def _preempt(self, sequence: Completing) -> None:
        """Copy a sequence out, and let it wait at the front."""
        self.running.remove(sequence)
        sequence.held = self._held(sequence)
        self._release(sequence)
        self.waiting.appendleft(sequence)
        self.num_preempted += 1

    def _bring_back(self, sequence: Completing) -> bool:
        assert sequence.held is not None
        num_passed, keys, values = sequence.held
        sequence.blocks = [_PASSED] * num_passed
        if not self._extend(sequence, sequence.num_computed + 1):
            sequence.blocks = []
            return False
        self.memory.copy_in(sequence.blocks[num_passed : num_passed + keys.shape[1]], (keys, values))
        sequence.held = None
        return True

    def _held(self, sequence: Completing) -> tuple[int, Tensor, Tensor]:
        """Copies of what a sequence has: how many of its blocks are passed, and what the others hold."""
        num_passed = sequence.blocks.count(_PASSED)
        return (num_passed, *self.memory.copy_out(sequence.blocks[num_passed:]))

    def _release(self, sequence: Completing) -> None:
        self.pool.give_back([block for block in sequence.blocks if block != _PASSED])
        sequence.blocks = []

    def _let_go(self, sequence: Completing) -> None:
        """Give back the blocks that have left all windows."""
        if self.memory.window is None:
            return
        for place in range(max(0, sequence.num_computed + 1 - self.memory.window) // BLOCK):
            if sequence.blocks[place] != _PASSED:
                self.pool.give_back([sequence.blocks[place]])
                sequence.blocks[place] = _PASSED

    def _run(self, pieces: list[tuple[Completing, Piece]]) -> Iterator[Tensor]:
        """Logits after each piece: of answers in compiled code if there is any, of the rest in torch."""

        def is_native(one: Completing, piece: Piece) -> bool:
            return piece.start >= len(one.prompt_ids) and one.adapter is None

        answers = [(one, piece) for one, piece in pieces if is_native(one, piece)]
        if self.native is None or not answers:
            return self._run_in_torch(pieces)
        others = [(one, piece) for one, piece in pieces if not is_native(one, piece)]
        of_others = self._run_in_torch(others) if others else iter(())
        rows = self.native(
            [token for one, _ in answers for token in (one.token_ids[-1], *one.guesses)],
            [place for _, piece in answers for place in range(piece.start, piece.end)],
            [piece.blocks for _, piece in answers for _ in range(piece.count)],
        )
        of_answers = iter(torch.split(rows, [piece.count for _, piece in answers]))
        return (next(of_answers if is_native(one, piece) else of_others) for one, piece in pieces)

    @torch.inference_mode()
    def _run_in_torch(self, pieces: list[tuple[Completing, Piece]]) -> Iterator[Tensor]:
        """Logits after each piece's last token, (1, V), or after each of its tokens where they are asked for."""
        ids = [token for sequence, piece in pieces for token in self._ids(sequence, piece)]
        num_padding = _padding(len(ids))
        device = self.model.device
        row = torch.tensor([ids + [0] * num_padding], device=device)
        step = PagedStep(self.memory, [piece for _, piece in pieces], num_padding)
        adapters = _rows_of_adapters(pieces, device)
        with peft.selected(self.model, adapters) if adapters else nullcontext():
            parts = [sequence.seen(piece.start, piece.end) for sequence, piece in pieces if sequence.in_prompt]
            seen = [part for part in parts if part is not None]
            if seen:
                assert isinstance(self.model, SeeingModel)
                hidden = self.model.hidden(row, cache=step, seen=torch.cat(seen))[0]
            else:
                hidden = self.model.hidden(row, cache=step)[0]  # (1, T) -> (T, C)
        wanted: list[int] = []
        counts: list[int] = []
        at = 0
        for sequence, piece in pieces:
            all_of_them = sequence.wants_prompt_logprobs and piece.start < len(sequence.prompt_ids)
            places = range(at, at + piece.count) if all_of_them else range(at + piece.count - 1, at + piece.count)
            wanted += places
            counts.append(len(places))
            at += piece.count
        padded = wanted + [0] * _padding(len(wanted))
        logits = self.model.logits(hidden[torch.tensor(padded, device=device)])[: len(wanted)].cpu()
        return iter(torch.split(logits, counts))

    @staticmethod
    def _ids(sequence: Completing, piece: Piece) -> list[int]:
        if piece.start < len(sequence.prompt_ids):
            return sequence.prompt_ids[piece.start : piece.end]
        return sequence.token_ids[-1:]


def _rows_of_adapters(pieces: Sequence[tuple[Completing, Piece]], device: torch.device) -> list[tuple[str, Tensor]]:
    """Which rows each adapter writes; filled up with rows of their own, so that no bits depend on their number."""
    rows: dict[str, list[int]] = {}
    at = 0
    for sequence, piece in pieces:
        if sequence.adapter is not None:
            rows.setdefault(sequence.adapter, []).extend(range(at, at + piece.count))
        at += piece.count
    return [(name, torch.tensor(of + of[:1] * _padding(len(of)), device=device)) for name, of in rows.items()]


def _padding(num_rows: int) -> int:
    """Rows to add."""
    return -num_rows % _ROWS
