"""What is evaluated: anything that writes texts and says how likely they are. A model, and the floors beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from inkling.eval.floors import END, TrigramModel


class Likelihood(NamedTuple):
    """Of a text after another.

    Attributes:
        nats: Logarithm of its probability.
        is_greedy: Whether it is what the likeliest tokens say.
        num_bytes: Its length.
        num_tokens: Its length in the subject's own tokens.
    """

    nats: float
    is_greedy: bool
    num_bytes: int
    num_tokens: int


@dataclass(frozen=True)
class Writing:
    """How answers are written.

    Attributes:
        stop: Strings that end an answer, which ends before them.
        samples: Answers to each prompt.
    """

    max_tokens: int
    stop: Sequence[str] = ()
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


class Subject(Protocol):
    """What a task asks."""

    name: str

    def write(self, prompts: Sequence[str], how: Writing) -> list[list[str]]:
        """What follows each prompt, so many times."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """How likely each second text is after the first."""


class Constant:
    """Says the same to everything."""

    def __init__(self, text: str) -> None:
        self.name = f"always {text!r}"
        self._text = text

    def write(self, prompts: Sequence[str], how: Writing) -> list[list[str]]:
        """The text."""
        return [[self._text] * how.samples for _ in prompts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """All bytes alike, so the shortest text is the likeliest."""
        lengths = [len(text.encode()) for _, text in pairs]
        return [Likelihood(-length * math.log(256), False, length, length) for length in lengths]


class Repeated(Constant):
    """Says the same word again and again, as long as it may: a model that knows one token."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.name = f"{word!r} again and again"

    def write(self, prompts: Sequence[str], how: Writing) -> list[list[str]]:
        """The word, so many times."""
        return [[self._text * how.max_tokens] * how.samples for _ in prompts]


class Ngrams:
    """A byte trigram model of the training text."""

    _BYTES_PER_TOKEN = 3

    def __init__(self, model: TrigramModel) -> None:
        self.name = "byte trigrams of the training text"
        self._model = model

    def write(self, prompts: Sequence[str], how: Writing) -> list[list[str]]:
        """The likeliest bytes for temperature 0, else drawn ones."""
        draw = np.random.default_rng(how.seed)
        return [[self._one(prompt, how, draw) for _ in range(how.samples)] for prompt in prompts]

    def _one(self, prompt: str, how: Writing, draw: np.random.Generator) -> str:
        known = [END, END, *prompt.encode()]
        first, second = known[-2:]
        written = bytearray()
        ends = [text.encode() for text in how.stop]
        while len(written) < how.max_tokens * self._BYTES_PER_TOKEN:
            chances = self._model.following(first, second)
            is_greedy = how.temperature == 0
            symbol = int(chances.argmax() if is_greedy else draw.choice(len(chances), p=chances / chances.sum()))
            if symbol == END:
                break
            written.append(symbol)
            first, second = second, symbol
            found = next((end for end in ends if written.endswith(end)), None)
            if found:
                del written[-len(found) :]
                break
        return written.decode("utf-8", "replace")

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """By the model's probabilities of each byte."""
        found = []
        for context, text in pairs:
            content = text.encode()
            symbols = np.array([END, END, *context.encode(), *content], np.int64)[-len(content) - 2 :]
            chances = self._model.probabilities(symbols) if len(content) else np.ones(1)
            greedy = all(
                int(self._model.following(*symbols[place : place + 2]).argmax()) == symbols[place + 2]
                for place in range(len(content))
            )
            found.append(Likelihood(float(np.log(chances).sum()), greedy, len(content), len(content)))
        return found
