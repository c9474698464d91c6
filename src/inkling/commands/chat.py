"""`inkling chat`: talk to a run on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from inkling import checkpoint
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import InklingError
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, can_compute
from inkling.infer.generate import check_room, generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import chat_ids


class Settings(SamplingParams, CommandSettings):
    """Talk to a run on the terminal.

    A run with a chat template is talked to by it. A model that was trained on plain text only continues text, so the
    conversation is written as a transcript, "User:" and "Assistant:" at the beginnings of lines, and the model
    continues it until it would speak for the user. When the conversation fills the model's context, its oldest turns
    are forgotten.

    In the conversation: /reset forgets everything, /quit or Ctrl-D ends, Ctrl-C stops an answer.

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
    print(f"{settings.run}: /reset forgets, /quit or Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
    while (line := _read_line()) is not None and line.strip() != "/quit":
        if line.strip() == "/reset":
            talk.turns = []
        else:
            talk.say(line)


def _read_line() -> str | None:
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        print()
        return None


class _Talk:
    """A conversation: what both said, in turns of a question and its answer."""

    def __init__(self, settings: Settings, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.turns: list[list[str]] = []
        self._settings = settings
        self._model = model
        self._tokenizer = tokenizer
        stop = [] if tokenizer.chat_template is not None else [f"\n{settings.user}:"]
        known = settings.model_dump(include=set(SamplingParams.model_fields) - {"stop"})
        self._params = SamplingParams(**known, stop=[*settings.stop, *stop])
        self._engine = Engine(model, tokenizer) if can_compute(model) and self._params.kv_cache == "full" else None

    def say(self, line: str) -> None:
        """Ask, stream the answer to the terminal, and remember both. Raises ModelError for a line that is too long."""
        self.turns.append([line])
        context = self._model.config.max_position_embeddings
        room = context - min(self._params.max_tokens, context // 2) - 1
        while len(self.turns) > 1 and len(self._ids()) > room:
            self.turns = self.turns[1:]
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
        self.turns[-1].append(text.strip())

    def _answer(self, engine: Engine, ids: list[int]) -> Iterator[str]:
        """The answer piece by piece; what the engine remembers of the conversation is not computed again."""
        pieces: list[str] = []
        answer = Completing(
            self._model,
            self._tokenizer,
            [self._tokenizer.eot_id, *ids],
            self._params,
            on_change=lambda answer, piece: pieces.append(piece),
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
            for question, *answers in self.turns:
                said = f" {answers[0]}\n" if answers else ""
                lines.append(f"{settings.user}: {question}\n{settings.assistant}:{said}")
            return self._tokenizer.encode("".join(lines))
        messages = [] if settings.system is None else [{"role": "system", "content": settings.system}]
        for turn in self.turns:
            messages += [
                {"role": role, "content": text} for role, text in zip(("user", "assistant"), turn, strict=False)
            ]
        return chat_ids(self._tokenizer, messages)
