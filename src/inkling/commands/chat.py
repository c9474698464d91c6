"""`inkling chat`: talk to a run on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inkling import checkpoint
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.data.pictures import read_picture
from inkling.errors import DataError, InklingError
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine
from inkling.infer.generate import check_room, generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel, SeeingModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import PICTURE, chat_ids


class Settings(SamplingParams, CommandSettings):
    """Talk to a run on the terminal.

    A run with a chat template is talked to by it. A model that was trained on plain text only continues text, so the
    conversation is written as a transcript, "User:" and "Assistant:" at the beginnings of lines, and the model
    continues it until it would speak for the user. When the conversation fills the model's context, its oldest turns
    are forgotten.

    In the conversation: /picture FILE shows a picture to a model that sees, with what you say next; /reset forgets
    everything, /quit or Ctrl-D ends, Ctrl-C stops an answer.

    Example: inkling chat runs/notes --temperature 0.7
    """

    model_config = SettingsConfigDict(cli_shortcuts={"max_tokens": "n"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    system: str | None = None
    """What the model is told before the conversation."""
    user: str = "User"
    """What your lines begin with in a transcript."""
    assistant: str = "Assistant"
    """What the model's lines begin with in a transcript."""


def run(settings: Settings) -> None:
    """Read a line, stream an answer, until the end of input."""
    model, tokenizer = checkpoint.load_model(settings.run)
    talk = _Talk(settings, model, tokenizer)
    shows = "/picture FILE shows one, " if isinstance(model, SeeingModel) else ""
    print(f"{settings.run}: {shows}/reset forgets, /quit or Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
    while (line := _read_line()) is not None and line.strip() != "/quit":
        command, _, rest = line.strip().partition(" ")
        if command == "/reset":
            talk.forget()
        elif command == "/picture":
            talk.show(rest.strip())
        else:
            talk.say(line)


def _read_line() -> str | None:
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        print()
        return None


@dataclass
class _Turn:
    """A question, with the pictures that were shown with it, and its answer."""

    question: str
    pictures: list[np.ndarray]
    answer: str | None = None


class _Talk:
    """A conversation: what both said, turn by turn."""

    def __init__(self, settings: Settings, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self._turns: list[_Turn] = []
        self._shown: list[np.ndarray] = []
        self._settings = settings
        self._model = model
        self._tokenizer = tokenizer
        stop = [] if tokenizer.chat_template is not None else [f"\n{settings.user}:"]
        known = settings.model_dump(include=set(SamplingParams.model_fields) - {"stop"})
        self._params = SamplingParams(**known, stop=[*settings.stop, *stop])
        self._engine = Engine(model, tokenizer) if self._params.kv_cache == "full" else None

    def forget(self) -> None:
        """Begin anew."""
        self._turns, self._shown = [], []

    def show(self, path: str) -> None:
        """Show a picture with what is said next; what is wrong with it is printed."""
        if not isinstance(self._model, SeeingModel):
            print("this model sees no pictures: give it eyes with inkling grow --pictures", file=sys.stderr)
        elif self._engine is None or self._tokenizer.chat_template is None:
            print("pictures need a chat template and the full cache: leave out --kv-cache", file=sys.stderr)
        else:
            try:
                self._shown.append(read_picture(path, Path.cwd(), self._model.picture_size))
                print(f"{path}: say what you want to know of it", file=sys.stderr)
            except DataError as error:
                print(error, file=sys.stderr)

    def say(self, line: str) -> None:
        """Ask, stream the answer to the terminal, and remember both. Raises ModelError for a line that is too long."""
        self._turns.append(_Turn(line.replace(PICTURE, " "), self._shown))
        self._shown = []
        context = self._model.config.max_position_embeddings
        room = context - min(self._params.max_tokens, context // 2) - 1
        while len(self._turns) > 1 and len(self._ids()) > room:
            self._turns = self._turns[1:]
        ids = self._ids()
        check_room(self._model, len(ids) + 1)
        pieces = (
            self._answer(self._engine, ids)
            if self._engine
            else generate(self._model, self._tokenizer, ids, self._params)
        )
        text = ""
        with contextlib.suppress(KeyboardInterrupt):
            for piece in pieces:
                print(piece if text else piece.lstrip(), end="", flush=True)
                text += piece
        print()
        self._turns[-1].answer = text.strip()

    def _answer(self, engine: Engine, ids: list[int]) -> Iterator[str]:
        """The answer piece by piece; what the engine remembers of the conversation is not computed again."""
        pieces: list[str] = []
        answer = Completing(
            self._model,
            self._tokenizer,
            [self._tokenizer.eot_id, *ids],
            self._params,
            on_change=lambda answer, piece: pieces.append(piece),
            pictures=[picture for turn in self._turns for picture in turn.pictures],
        )
        engine.add(answer)
        try:
            while not engine.is_idle:
                engine.step()
                yield from filter(None, pieces)
                pieces.clear()
        finally:
            engine.abort(answer)
        if answer.failure is not None:
            raise InklingError(answer.failure)

    def _ids(self) -> list[int]:
        """The tokens of the conversation up to where the answer begins."""
        settings = self._settings
        if self._tokenizer.chat_template is None:
            lines = [] if settings.system is None else [f"System: {settings.system}\n"]
            for turn in self._turns:
                said = "" if turn.answer is None else f" {turn.answer}\n"
                lines.append(f"{settings.user}: {turn.question}\n{settings.assistant}:{said}")
            return self._tokenizer.encode("".join(lines))
        messages = [] if settings.system is None else [{"role": "system", "content": settings.system}]
        for turn in self._turns:
            shown = PICTURE * len(turn.pictures) + "\n" if turn.pictures else ""
            messages.append({"role": "user", "content": shown + turn.question})
            if turn.answer is not None:
                messages.append({"role": "assistant", "content": turn.answer})
        return chat_ids(self._tokenizer, messages, picture_ids=self._picture_ids())

    def _picture_ids(self) -> list[int]:
        """What stands for a picture, where some were shown."""
        if not isinstance(self._model, SeeingModel) or not any(turn.pictures for turn in self._turns):
            return []
        return [self._model.image_token] * self._model.tokens_of_a_picture
