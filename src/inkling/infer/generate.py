"""From prompts to completions, with a key-value cache: one as a stream of text, or many side by side.

A prompt begins a document, as in training: the model sees an end-of-text token before it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from inkling.errors import ModelError
from inkling.infer.sampling import Draw, SamplingParams, next_token
from inkling.infer.stops import StopStrings
from inkling.models import Int8KVCache, KVCache, LanguageModel
from inkling.tokenizer import Tokenizer

StopReason = Literal["stop", "length"]


@dataclass
class Completion:
    """What a model wrote after a prompt. It fills while the text is generated.

    Attributes:
        text: Whole characters, without special tokens and without the stop string.
        token_ids: Tokens drawn, the end-of-text token included.
        num_prompt_tokens: Tokens the model saw before, the end-of-text token included.
        seed: Gives the same completion again.
        stop_reason: `stop` at an end-of-text token or a stop string, `length` at `max_tokens` or a full context.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    num_prompt_tokens: int = 0
    seed: int = 0
    stop_reason: StopReason = "length"


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    params: SamplingParams,
    completion: Completion | None = None,
) -> Iterator[str]:
    """Stream what the model writes after `prompt`, in pieces that are never empty and never end in half a character.

    Args:
        model: In evaluation mode.
        prompt: Text, or its tokens without the end-of-text token at the front.
        completion: Is filled along the way, for a caller who wants to know more than the text.

    Raises:
        ModelError: The prompt leaves no room in the model's context, or the model's numbers are not finite.
    """
    writer = _Writer(model, tokenizer, prompt, params, Completion() if completion is None else completion)
    return _stream(model, writer)


def generate_batch(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], params: SamplingParams
) -> list[Completion]:
    """One completion for each prompt, all generated side by side: a step for many costs little more than for one.

    Each prompt has its own draws from the same seed, so its completion does not depend on its neighbours.

    Raises:
        ModelError: As `generate`.
    """
    writers = [_Writer(model, tokenizer, prompt, params, Completion()) for prompt in prompts]
    for _ in _steps(model, writers):
        pass
    return [writer.completion for writer in writers]


def check_room(model: LanguageModel, num_prompt_tokens: int) -> int:
    """Tokens that may follow a prompt. Raises ModelError when there is room for none."""
    context = model.config.max_position_embeddings
    if num_prompt_tokens >= context:
        raise ModelError(
            f"the prompt has {num_prompt_tokens:,} tokens, the model's context only {context:,}: shorten the prompt, "
            "or keep its end with --truncate-prompt"
        )
    return context - num_prompt_tokens


def kept_of_prompt(model: LanguageModel, params: SamplingParams) -> int:
    """Tokens of a prompt that are kept where it is to be cut: half of the context at least."""
    context = model.config.max_position_embeddings
    return max(context // 2, context - params.max_tokens) - 1


class _Writer:
    """One completion in the making: draws tokens, turns them into text, knows when to stop."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        prompt: str | Sequence[int],
        params: SamplingParams,
        completion: Completion,
    ) -> None:
        prompt_ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if params.truncate_prompt:
            prompt_ids = prompt_ids[max(0, len(prompt_ids) - kept_of_prompt(model, params)) :]
        self.prompt_ids = [tokenizer.eot_id, *prompt_ids]
        self.limit = min(params.max_tokens, check_room(model, len(self.prompt_ids)))
        self.completion = completion
        self.finished = False
        completion.num_prompt_tokens = len(self.prompt_ids)
        completion.seed = secrets.randbelow(2**31) if params.seed is None else params.seed
        self.params = params
        self._stream = tokenizer.stream()
        self._stops = StopStrings(params.stop)
        self._vocab_size = tokenizer.vocab_size
        self._end_ids = frozenset() if params.ignore_eos else tokenizer.end_ids

    def write(self, logits: Tensor) -> None:
        """Draw the next token from `logits`, (V,), and add what it completes to the text."""
        completion = self.completion
        # The model may have more rows than the tokenizer has tokens. The first end-of-text token is no repetition.
        draw = Draw(self.params, self.prompt_ids[1:], completion.token_ids, completion.seed)
        token_id = next_token(logits[: self._vocab_size], draw)
        completion.token_ids.append(token_id)
        ended = token_id in self._end_ids
        if not ended:
            completion.text += self._stops.push(self._stream.push(token_id))
        if not self._stops.found and (ended or len(completion.token_ids) == self.limit):
            completion.text += self._stops.push(self._stream.finish()) + self._stops.finish()
            self.finished = True
        if ended or self._stops.found:
            completion.stop_reason = "stop"
            self.finished = True


def _stream(model: LanguageModel, writer: _Writer) -> Iterator[str]:
    shown = 0
    for _ in _steps(model, [writer]):
        text = writer.completion.text
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)


def _steps(model: LanguageModel, writers: Sequence[_Writer]) -> Iterator[None]:
    """Let all writers write, one token each a step, until all have finished."""
    device = model.device
    active = list(writers)
    longest = max((len(writer.prompt_ids) for writer in active), default=0)
    padding = [longest - len(writer.prompt_ids) for writer in active]
    new_ids = [[0] * pad + writer.prompt_ids for pad, writer in zip(padding, active, strict=True)]
    num_slots = longest + max((writer.limit for writer in active), default=0)
    packed = any(writer.params.kv_cache == "int8" for writer in active)
    make = Int8KVCache if packed else KVCache
    cache = make(model.config, len(active), num_slots, padding=padding, dtype=model.dtype, device=device)
    while active:
        logits = _next_logits(model, torch.tensor(new_ids, device=device), cache)  # (B, V)
        for writer, row in zip(active, logits, strict=True):
            writer.write(row)
        yield
        going = [row for row, writer in enumerate(active) if not writer.finished]
        if len(going) < len(active):
            cache.keep(going)
            active = [active[row] for row in going]
        new_ids = [writer.completion.token_ids[-1:] for writer in active]


@torch.inference_mode()
def _next_logits(model: LanguageModel, input_ids: Tensor, cache: KVCache) -> Tensor:
    """Logits of what follows `input_ids`, on the CPU, where all draws are made: (B, T) -> (B, V)."""
    hidden = model.hidden(input_ids, cache=cache)[:, -1]  # (B, T, C) -> (B, C)
    return model.logits(hidden).float().cpu()
