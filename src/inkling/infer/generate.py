"""One completion at a time, as a stream of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from inkling.errors import ModelError
from inkling.infer.sampling import SamplingParams, next_token
from inkling.models import KVCache, LanguageModel
from inkling.tokenizer import Tokenizer

StopReason = Literal["stop", "length"]


@dataclass
class Completion:
    """What became of a completion: filled while it streams.

    Attributes:
        token_ids: Tokens written, an end-of-text token included.
        stop_reason: `stop` at an end-of-text token or a stop string, `length` at `max_tokens` or a full context.
    """

    token_ids: list[int] = field(default_factory=list)
    stop_reason: StopReason = "length"


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams,
    completion: Completion | None = None,
) -> Iterator[str]:
    """Stream what the model writes after `prompt`: whole characters, without special tokens and stop strings.

    The prompt begins a document, as in training: the model sees an end-of-text token before it.

    Raises:
        ModelError: The prompt leaves no room in the model's context.
    """
    completion = completion if completion is not None else Completion()
    prompt_ids = [tokenizer.eot_id, *tokenizer.encode(prompt)]
    room = check_room(model, len(prompt_ids))
    text = tokenizer.stream()
    stops = StopStrings(params.stop)
    for token_id in _tokens(model, prompt_ids, params, min(params.max_tokens, room)):
        completion.token_ids.append(token_id)
        if token_id == tokenizer.eot_id and not params.ignore_eos:
            completion.stop_reason = "stop"
            break
        yield stops.push(text.push(token_id))
        if stops.found:
            completion.stop_reason = "stop"
            return
    yield stops.push(text.finish()) + stops.finish()


def check_room(model: LanguageModel, num_prompt_tokens: int) -> int:
    """Tokens that may follow a prompt. Raises ModelError when there is room for none."""
    context = model.config.max_position_embeddings
    if num_prompt_tokens >= context:
        raise ModelError(
            f"the prompt has {num_prompt_tokens:,} tokens, the model's context only {context:,}: shorten the prompt"
        )
    return context - num_prompt_tokens


@torch.inference_mode()
def _step(model: LanguageModel, ids: list[int], cache: KVCache) -> torch.Tensor:
    """Logits (V,) of what follows `ids`, which continue what is in the cache."""
    device = model.head_weight.device
    hidden = model.hidden(torch.tensor([ids], device=device), cache=cache)  # (1, T, C)
    return torch.nn.functional.linear(hidden[0, -1], model.head_weight)


def _tokens(model: LanguageModel, prompt_ids: list[int], params: SamplingParams, limit: int) -> Iterator[int]:
    weight = model.head_weight
    cache = KVCache(model.config, 1, len(prompt_ids) + limit, dtype=weight.dtype, device=weight.device)
    generator = torch.Generator()
    generator.seed() if params.seed is None else generator.manual_seed(params.seed)
    written: list[int] = []
    new = prompt_ids
    for _ in range(limit):
        token_id = next_token(_step(model, new, cache), params, prompt_ids, written, generator)
        yield token_id
        written.append(token_id)
        new = [token_id]


class StopStrings:
    """Looks for stop strings across pieces of text, holding back what may be the beginning of one."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is safe to show."""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
