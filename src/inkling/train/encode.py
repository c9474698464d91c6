"""From rows of chats and preferences to tokens, some of them to be learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from inkling.data.chats import AnyRow, Conversation, Judged, Message, Preference, Question
from inkling.data.pictures import read_picture
from inkling.errors import DataError, TokenizerError
from inkling.models import LanguageModel, SeeingModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import chat_ids, dialogue
from inkling.train.sequences import Tokens

Format = Literal["chat", "plain"]
KEPT_BYTES = 512 << 20
"""Of pixels that are held in memory while training."""
_NO_EYES = "it holds a picture, and the model sees none: give it eyes with inkling grow --pictures"
T = TypeVar("T")


@dataclass(frozen=True)
class Eyes:
    """What a model takes for a picture.

    Attributes:
        token: The token that stands for a patch.
        count: How many of them a picture takes.
        size: Pixels of a side.
        folder: Where paths of pictures begin; None: only data URLs are read.
    """

    token: int
    count: int
    size: int
    folder: Path | None

    @cached_property
    def read(self) -> Callable[[str], np.ndarray]:
        """Reads a picture, and keeps it while there is room: others are read again when they are needed."""
        kept = lru_cache(max(1, KEPT_BYTES // (3 * self.size**2)))
        return kept(lambda source: read_picture(source, self.folder, self.size))

    @classmethod
    def of(cls, model: LanguageModel, folder: Path | None) -> Eyes | None:
        """Those of a model; None where it has none."""
        if not isinstance(model, SeeingModel):
            return None
        return cls(model.image_token, model.tokens_of_a_picture, model.picture_size, folder)


@dataclass
class Encoder:
    """Makes tokens of rows. Every text begins after an end-of-text token, as the model will meet it.

    Args:
        form: chat: by the tokenizer's template. plain: prompt and answer as they are, and the end-of-text token.
        context: Tokens that the model sees at once; what is longer loses its end.
        only_last: Learn only the last answer of a conversation.
        eyes: What the model takes for a picture, if it sees.

    Attributes:
        num_cut: Texts that were too long.
    """

    tokenizer: Tokenizer
    form: Format
    context: int
    only_last: bool = False
    eyes: Eyes | None = None
    num_cut: int = field(default=0, init=False)

    def conversation(self, row: Conversation) -> Tokens:
        """A conversation, its answers to be learnt. Raises DataError where nothing is left to learn."""
        return self._tokens(row, row.messages, only_last=self.only_last)

    def answers(self, row: Preference) -> list[Tokens]:
        """A prompt with each of its answers, which alone are to be learnt. Raises DataError as above."""
        return [self._tokens(row, [*row.prompt, *answer], only_last=True) for answer in row.answers]

    def judged(self, row: Judged) -> Tokens:
        """A prompt with its answer."""
        return self._tokens(row, [*row.prompt, *row.answer], only_last=True)

    def mismatched(self, row: Judged, other: Judged) -> Tokens:
        """A prompt with the answer to another one."""
        return self._tokens(row, [*row.prompt, *other.answer], only_last=True)

    def prompt(self, row: Question, max_tokens: int) -> list[int]:
        """A prompt, up to where the answer begins. Raises DataError where no room is left for the answer."""
        try:
            ids = self._prompt_ids(row, row.prompt)
        except TokenizerError as error:
            raise DataError(f"{row.place}: {error}") from None
        if len(ids) + max_tokens > self.context:
            raise DataError(
                f"{row.place}: the prompt has {len(ids)} tokens; with {max_tokens} of an answer it does not fit into "
                f"the model's {self.context}"
            )
        return ids

    def _prompt_ids(self, row: AnyRow, messages: Sequence[Message]) -> list[int]:
        if self.form == "plain":
            return [self.tokenizer.eot_id, *self.tokenizer.encode(_plain(row, messages))]
        ids = self._picture_ids(row, messages)
        return [self.tokenizer.eot_id, *chat_ids(self.tokenizer, messages, row.tools, picture_ids=ids)]

    def pictures(self, row: AnyRow, messages: Sequence[Message]) -> list[np.ndarray]:
        """The pictures of some messages, read. Raises DataError."""
        sources = _sources(messages)
        if not sources:
            return []
        if self.eyes is None or self.form == "plain":
            raise DataError(
                f"{row.place}: {_NO_EYES}"
                if self.eyes is None
                else f"{row.place}: pictures are for conversations: leave out --form plain"
            )
        try:
            return [self.eyes.read(source) for source in sources]
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from None

    def _picture_ids(self, row: AnyRow, messages: Sequence[Message]) -> list[int]:
        if not _sources(messages):
            return []
        if self.eyes is None:
            raise DataError(f"{row.place}: {_NO_EYES}")
        return [self.eyes.token] * self.eyes.count

    def _tokens(self, row: AnyRow, messages: Sequence[Message], *, only_last: bool) -> Tokens:
        eot_id = self.tokenizer.eot_id
        try:
            if self.form == "plain":
                before = self._prompt_ids(row, messages[:-1])
                answer = [*self.tokenizer.encode(messages[-1]["content"]), eot_id]
                ids, is_learnt = [*before, *answer], [*[False] * len(before), *[True] * len(answer)]
            else:
                found = dialogue(
                    self.tokenizer,
                    messages,
                    row.tools,
                    only_last=only_last,
                    picture_ids=self._picture_ids(row, messages),
                )
                ids, is_learnt = [eot_id, *found.ids], [False, *found.is_answer]
        except TokenizerError as error:
            raise DataError(f"{row.place}: {error}") from None
        if len(ids) > self.context + 1:
            self.num_cut += 1
            ids, is_learnt = ids[: self.context + 1], is_learnt[: self.context + 1]
        if not any(is_learnt):
            raise DataError(f"{row.place}: the first {self.context} tokens hold no answer to learn")
        num_pictures = len(self.pictures(row, messages))  # which says whether they can be read
        if self.eyes is None:
            return Tokens(ids, is_learnt)
        if list(ids).count(self.eyes.token) != num_pictures * self.eyes.count:
            raise DataError(f"{row.place}: its pictures do not fit into the model's {self.context} tokens")
        return Tokens(ids, is_learnt, [partial(self.eyes.read, source) for source in _sources(messages)])


def _sources(messages: Sequence[Message]) -> list[str]:
    return [source for message in messages for source in message.get("pictures", ())]


def _plain(row: AnyRow, messages: Sequence[Message]) -> str:
    if [message["role"] for message in messages] != ["user"]:
        raise DataError(f"{row.place}: plain is for a prompt and its answer; take --format chat for conversations")
    return str(messages[0]["content"])


def encoded(rows: Iterable[AnyRow], encode: Callable[[AnyRow], Iterable[T]], bad: list[str] | None) -> list[T]:
    """What the rows give, row by row.

    Args:
        bad: Takes the reasons of rows that cannot be used, which are left out then; None: the first one is an error.
    """
    found: list[T] = []
    for row in rows:
        try:
            found += list(encode(row))
        except DataError as error:
            if bad is None:
                raise DataError(f"{error}. Correct it, or leave such rows out with --skip-bad-rows") from None
            bad.append(str(error))
    return found
