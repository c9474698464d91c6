"""One completion in the making: what it was asked, what it has written, and how its next token is drawn."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from inkling.data.pictures import to_pixels
from inkling.errors import ModelError
from inkling.infer.generate import check_room, kept_of_prompt
from inkling.infer.grammar import Grammar
from inkling.infer.lookup import Lookup
from inkling.infer.sampling import Draw, SamplingParams, has_filters, has_penalties
from inkling.infer.stops import StopStrings
from inkling.models import LanguageModel, SeeingModel
from inkling.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "aborted"]


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was, and what else was.

    Attributes:
        logprob: Of the model's own distribution, before penalties and temperature; None for a first token.
        top: The likeliest tokens, id → logprob, likeliest first.
    """

    token_id: int
    logprob: float | None
    top: dict[int, float] = field(default_factory=dict)


class Completing:
    """One completion in the making.

    Args:
        prompt_ids: All tokens before it, the end-of-text token at their front included.
        on_change: Is called with each new text, and when the completion fails, from the thread that steps.
        num_top: Likeliest tokens to report for each one drawn; None: no log probabilities.
        prompt_logprobs: Also report those of the prompt.
        stop_ids: Tokens that end it, beside the model's own.
        min_tokens: Before so many, no such token is drawn.
        logit_bias: Token id → what is added to its logit.
        grammar: What the text has to be; it ends where nothing more may follow.
        salt: Shares beginnings of prompts only with those that have the same.
        adapter: The model's adapter that writes; None: the model alone.
        pictures: Bytes, (S, S, 3) each, of those in the prompt, in the order of their tokens.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        on_change: Callable[[Completing, str], None] = lambda sequence, text: None,
        num_top: int | None = None,
        prompt_logprobs: bool = False,
        stop_ids: Sequence[int] = (),
        min_tokens: int = 0,
        logit_bias: Mapping[int, float] | None = None,
        grammar: Grammar | None = None,
        salt: bytes = b"",
        adapter: str | None = None,
        pictures: Sequence[np.ndarray] = (),
    ) -> None:
        if params.kv_cache != "full":
            raise ModelError("keys and values in 8 bits are for one text at a time: inkling generate --kv-cache int8")
        self.prompt_ids = list(prompt_ids)
        if params.truncate_prompt:
            kept = kept_of_prompt(model, params)
            self.prompt_ids[1 : max(1, len(self.prompt_ids) - kept)] = []
        self.params = params
        self.salt = salt if adapter is None else salt + b"\0" + adapter.encode()
        self.adapter = adapter
        if pictures:  # the same words about another picture are another prompt
            self.salt += hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).digest()
        self._pictures = pictures
        self._seen: Tensor | None = None
        self._model = model
        self.image_token = model.image_token if isinstance(model, SeeingModel) else None
        self.on_change = on_change
        self.num_top = num_top
        self.wants_prompt_logprobs = prompt_logprobs
        self.limit = min(params.max_tokens, check_room(model, len(self.prompt_ids)))
        self.seed = secrets.randbelow(2**31) if params.seed is None else params.seed
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.prompt_logprobs: list[TokenLogprob] = []
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.failure: str | None = None
        """Why no token could be drawn, if that happened; the completion is aborted then."""
        self.num_computed = 0
        self.num_cached = 0
        self.blocks: list[int] = []
        self.held: tuple[int, list[Tensor]] | None = None
        self.siblings: list[Completing] = []
        """Of the same prompt, which begin when it is computed."""
        self.guesses: list[int] = []
        """Computed in this step beside the next token."""
        self.num_guessed = self.num_guessed_right = 0
        self._lookup: Lookup | None = None
        self._min_tokens = min_tokens
        self._grammar = grammar
        self._bias = dict(logit_bias or {})
        self._is_particular = bool(
            self._bias
            or grammar is not None
            or self.image_token is not None
            or has_penalties(params)
            or has_filters(params)
        )
        self._stream = tokenizer.stream()
        self._stops = StopStrings(params.stop)
        self._vocab_size = tokenizer.vocab_size
        self._needs_prompt = params.repetition_penalty != 1
        self.end_ids = (frozenset() if params.ignore_eos else tokenizer.end_ids) | set(stop_ids)

    def seen(self, start: int, stop: int) -> Tensor | None:
        """What stands in the places of the image tokens of a part of the prompt, (tokens, C); None without any."""
        if not self._pictures or self.image_token is None:
            return None
        before, count = (self.prompt_ids[a:b].count(self.image_token) for a, b in ((0, start), (start, stop)))
        if not count:
            return None
        if self._seen is None:
            assert isinstance(self._model, SeeingModel)
            self._seen = self._model.see(to_pixels(self._pictures).to(self._model.device, self._model.dtype))
        return self._seen[before : before + count]

    @property
    def in_prompt(self) -> bool:
        """Whether tokens of the prompt are left to compute."""
        return self.num_computed < len(self.prompt_ids)

    def note_prompt(self, logits: Tensor, start: int) -> None:
        """Keep the log probabilities of the prompt's tokens after place `start`, from logits (T, V)."""
        if start == 0:
            self.prompt_logprobs.append(TokenLogprob(self.prompt_ids[0], None))
        following = self.prompt_ids[start + 1 : start + 1 + len(logits)]
        for row, token_id in zip(logits, following, strict=False):
            self.prompt_logprobs.append(self._logprob(row, token_id))

    def allowed(self, logits: Tensor) -> Tensor:
        """The logits (V,) with what must not come next at minus infinity, and what is wanted more or less moved.

        Raises ModelError when nothing may come next.
        """
        logits = given = logits[: self._vocab_size]
        if self.image_token is not None:  # which has a meaning in prompts alone
            logits = logits.index_fill(0, torch.tensor(self.image_token), -torch.inf)
        if self._bias:
            ids, values = zip(*self._bias.items(), strict=True)
            logits = logits.float().index_add(0, torch.tensor(ids), torch.tensor(values, dtype=torch.float32))
        if self._is_too_short:
            logits = logits.index_fill(0, torch.tensor(sorted(self.end_ids)), float("-inf"))
        if self._grammar is not None:
            logits = logits.masked_fill(~self._grammar.allowed(len(logits)), float("-inf"))
        if logits is not given and logits.amax() == float("-inf") and given.amax().isfinite():
            raise ModelError("no token is left to follow: what is asked for leaves out every one")
        return logits

    @property
    def _is_too_short(self) -> bool:
        """Whether it must not end yet."""
        return bool(self.end_ids) and len(self.token_ids) < self._min_tokens

    @property
    def is_plain(self) -> bool:
        """Whether the next token depends on nothing but the logits, the temperature, the seed and its place."""
        return not (self._is_particular or self._is_too_short)

    def guess(self, count: int) -> None:
        """Look up to `count` tokens up that may follow the next one."""
        if self._lookup is None:
            self._lookup = Lookup([*self.prompt_ids[1:], *self.token_ids])
        self.guesses = self._lookup.guess(max(0, min(count, self.limit - len(self.token_ids) - 1)))

    def learn(self, num_right: int) -> None:
        """How many of this step's guesses were right."""
        if self._lookup is not None:
            self._lookup.learn(len(self.guesses), num_right)
        self.num_guessed += len(self.guesses)
        self.num_guessed_right += num_right
        self.guesses = []

    @property
    def next_draw(self) -> Draw:
        """What the next token depends on, beside the logits."""
        return Draw(self.params, self.prompt_ids[1:] if self._needs_prompt else (), self.token_ids, self.seed)

    def take(self, token_id: int, logits: Tensor) -> None:
        """Add the token that was drawn after logits (V,), and tell what it adds to the text."""
        if self.num_top is not None:
            self.logprobs.append(self._logprob(logits, token_id))
        self.take_all([token_id])

    def take_all(self, token_ids: Sequence[int]) -> None:
        """Add tokens, up to what ends it, and tell what they add to the text."""
        piece = ""
        for token_id in token_ids:
            piece += self._add(token_id)
            if self.finish_reason is not None:
                break
        self.text += piece
        self.on_change(self, piece)

    def _add(self, token_id: int) -> str:
        """Add a token; what may be shown with it."""
        self.token_ids.append(token_id)
        if self._lookup is not None:
            self._lookup.add(token_id)
        ended = token_id in self.end_ids
        complete = self._grammar is not None and not ended and self._grammar.accept(token_id)
        piece = "" if ended else self._stops.push(self._stream.push(token_id))
        if not self._stops.found and (ended or complete or len(self.token_ids) == self.limit):
            piece += self._stops.push(self._stream.finish()) + self._stops.finish()
            self.finish_reason = "stop" if ended or complete else "length"
        if self._stops.found:
            self.finish_reason = "stop"
        return piece

    def fail(self, reason: str) -> None:
        """End without a next token."""
        self.failure, self.finish_reason = reason, "aborted"
        self.on_change(self, "")

    def _logprob(self, logits: Tensor, token_id: int) -> TokenLogprob:
        table = logits[: self._vocab_size].float().log_softmax(0)
        top = {}
        if self.num_top:
            values, ids = table.topk(min(self.num_top, len(table)))
            top = dict(zip(ids.tolist(), values.tolist(), strict=True))
        return TokenLogprob(token_id, float(table[token_id]), top)
