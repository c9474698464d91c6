"""Many completions at once: one `step` schedules, runs the model, and draws the next tokens.

A request's text depends on its prompt, its parameters and its seed, and not on what else is computed: see
`docs/decisions/2026-11-21-serving.md`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from inkling import peft
from inkling.errors import ModelError
from inkling.infer.blocks import BLOCK, BlockPool
from inkling.infer.completing import Completing
from inkling.infer.drawing import Ahead, plain_draw, take_drawn, take_written
from inkling.infer.forward import Forward
from inkling.infer.native import NativeStep, Span, UnavailableError
from inkling.infer.paged import PagedMemory, Piece
from inkling.infer.room import Room
from inkling.models import LanguageModel
from inkling.quantize import keep_packed
from inkling.tokenizer import Tokenizer


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


class Engine:
    """Completions of one model, computed together.

    Not for several threads at once: one adds, aborts and steps.

    Args:
        native: Compute answers token by token in compiled code, where that can be had.

    Attributes:
        native: The compiled step, if there is one.
        why_not_native: Why there is none.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, limits: EngineLimits | None = None, *, native: bool = True
    ) -> None:
        keep_packed(model)
        self.model = model
        self.tokenizer = tokenizer
        self.limits = limits or EngineLimits()
        self.pool = BlockPool(self.limits.num_blocks)
        self.memory = PagedMemory(model.config, self.limits.num_blocks, model.dtype, model.device)
        self.room = Room(self.pool, self.memory)
        self.waiting: deque[Completing] = deque()
        self.running: list[Completing] = []
        self.num_preempted = 0
        self.ahead = Ahead()
        self.native: NativeStep | None = None
        self.why_not_native = "it was not asked for"
        if native and peft.is_in_use(model):
            self.why_not_native = "an adapter is in use"
        elif native:
            try:
                self.native = NativeStep(model, self.memory, tokenizer.vocab_size)
            except UnavailableError as reason:
                self.why_not_native = str(reason)
        self._forward = Forward(model, self.memory, self.native)

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
            self.room.release(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self.room.release(sequence)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.running and not self.waiting

    # ------------------------------------------------------------ one step

    def step(self) -> None:
        """Schedule, run, draw; several tokens of each answer where nothing else is to be done between them."""
        if self._write_ahead():
            return
        pieces = self._schedule()
        if not pieces:
            return
        logits = self._forward(pieces)
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
            self.room.let_go(sequence)
        self._release_finished()

    def _release_finished(self) -> None:
        for sequence in [one for one in self.running if one.finish_reason is not None]:
            self.running.remove(sequence)
            self.room.release(sequence)

    def _begin_siblings(self, first: Completing) -> list[Completing]:
        """Those of the same prompt: what it left behind is copied for them, and they wait for room to go on."""
        siblings, first.siblings = [one for one in first.siblings if one.finish_reason is None], []
        if siblings:
            held = self.room.held(first)
            for one in siblings:
                one.held, one.num_computed = held, first.num_computed
            self.waiting.extendleft(reversed(siblings))
        return siblings

    def _draw(self, drawing: list[tuple[Completing, Tensor, int]]) -> None:
        """The next tokens of each sequence, from logits (1 + guesses, V) after its last one and after each guess."""
        place = 0
        while drawing:
            take_drawn(self.native, [(sequence, rows[place]) for sequence, rows, _ in drawing])
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

    # ------------------------------------------------------------ several steps in one

    def _write_ahead(self) -> bool:
        """Several tokens of all answers, in compiled code alone; False where something else is to be done."""
        running = list(self.running)
        may_begin = self.waiting and len(running) < self.limits.max_sequences
        if self.native is None or not running or may_begin or not all(map(_goes_by_itself, running)):
            return False
        for one in running:
            self._guess(one)
        limits = [min(self.ahead.count, one.limit - len(one.token_ids)) for one in running]
        if any(one.guesses for one in running):
            return False
        if not self.room.extend_all(
            {one: one.num_computed + limit for one, limit in zip(running, limits, strict=True)}
        ):
            return False
        started_s = time.perf_counter()
        rows = self.native.write(
            [Span(one.token_ids[-1:], one.num_computed, one.blocks) for one in running],
            [plain_draw(one, limit) for one, limit in zip(running, limits, strict=True)],
        )
        self.ahead.learn(time.perf_counter() - started_s, max(map(len, rows)))
        for one, token_ids in zip(running, rows, strict=True):
            one.num_computed += len(token_ids)
            take_written(one, token_ids)
        self._release_finished()
        return True

    # ------------------------------------------------------------ who comes when

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
            if sequence.guesses and not self.room.extend(sequence, sequence.num_computed + 1 + len(sequence.guesses)):
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
            return self.room.bring_back(sequence)
        shared = [] if sequence.wants_prompt_logprobs else self.pool.find(sequence.prompt_ids, sequence.salt)
        sequence.blocks = shared
        sequence.num_computed = sequence.num_cached = len(shared) * BLOCK
        if not self.room.extend(sequence, len(sequence.prompt_ids) + 1):
            self.pool.num_hits -= len(shared) * BLOCK
            self.room.release(sequence)
            sequence.num_computed = sequence.num_cached = 0
            return False
        return True

    def _make_room(self, sequence: Completing, num_tokens: int) -> bool:
        """Blocks for a running sequence, if need be from those that came last. False when it had to go itself."""
        while not self.room.extend(sequence, num_tokens):
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        return True

    def _preempt(self, sequence: Completing) -> None:
        """Copy a sequence out, and let it wait at the front."""
        self.running.remove(sequence)
        sequence.held = self.room.held(sequence)
        self.room.release(sequence)
        self.waiting.appendleft(sequence)
        self.num_preempted += 1


def _goes_by_itself(sequence: Completing) -> bool:
    """Whether nothing is asked for between two of its tokens."""
    plain = sequence.is_plain and sequence.num_top is None
    return plain and not sequence.in_prompt and sequence.adapter is None
