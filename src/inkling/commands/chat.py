"""`inkling chat`: talk to a run on the terminal."""

from __future__ import annotations

import sys
from pathlib import Path

from inkling import checkpoint
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.infer.generate import check_room, generate
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer


class Settings(SamplingParams, CommandSettings):
    """Talk to a run on the terminal.

    A model that was trained on plain text only continues text. So the conversation is written as a transcript, "User:"
    and "Assistant:" at the beginnings of lines, and the model continues it until it would speak for the user. When
    the transcript fills the model's context, its oldest lines are forgotten.

    In the conversation: /reset forgets everything, /quit or Ctrl-D ends, Ctrl-C stops an answer.

    Example: inkling chat runs/notes --temperature 0.7
    """

    model_config = SettingsConfigDict(cli_shortcuts={"max_tokens": "n"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    user: str = "User"
    """What your lines begin with in the transcript."""
    assistant: str = "Assistant"
    """What the model's lines begin with."""


def run(settings: Settings) -> None:
    """Read a line, stream an answer, until the end of input."""
    model, tokenizer = checkpoint.load_model(settings.run)
    params = SamplingParams(
        **settings.model_dump(include=set(SamplingParams.model_fields) - {"stop"}),
        stop=[*settings.stop, f"\n{settings.user}:"],
    )
    turns: list[str] = []
    print(f"{settings.run}: /reset forgets, /quit or Ctrl-D ends, Ctrl-C stops an answer", file=sys.stderr)
    while (line := _read_line()) is not None and line.strip() != "/quit":
        if line.strip() == "/reset":
            turns = []
            continue
        turns.append(f"{settings.user}: {line}\n{settings.assistant}:")
        turns = _recent(turns, model, tokenizer, params.max_tokens)
        turns[-1] += _answer("".join(turns), model, tokenizer, params) + "\n"


def _read_line() -> str | None:
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        print()
        return None


def _answer(transcript: str, model: LanguageModel, tokenizer: Tokenizer, params: SamplingParams) -> str:
    """Stream the answer to the terminal, and return it."""
    pieces: list[str] = []
    try:
        for piece in generate(model, tokenizer, transcript, params):
            pieces.append(piece)
            print(piece if len(pieces) > 1 else piece.lstrip(), end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
    return "".join(pieces).rstrip()


def _recent(turns: list[str], model: LanguageModel, tokenizer: Tokenizer, max_tokens: int) -> list[str]:
    """The last turns, as many as leave room for an answer of half the context at most; at least the last one."""
    room = model.config.max_position_embeddings - min(max_tokens, model.config.max_position_embeddings // 2) - 1
    while len(turns) > 1 and len(tokenizer.encode("".join(turns))) > room:
        turns = turns[1:]
    check_room(model, len(tokenizer.encode("".join(turns))) + 1)
    return turns
