"""Rows as a model learns them, token by token, for people."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from inkling.data.chats import AnyRow, Judged, Preference, Question, as_conversations
from inkling.data.examples import rows_of
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import CHATML
from inkling.train.encode import Encoder
from inkling.train.sequences import Tokens

_COLOURS = {"learnt": "\x1b[30;42m", "end": "\x1b[30;43m", "seen": "\x1b[2m"}
_RESET = "\x1b[0m"
_NO_CUT = 1 << 30


def show_rows(path: Path, tokenizer: Tokenizer, count: int, form: Literal["chat", "plain"]) -> None:
    """Print the first rows: what is learnt in green, the token that ends an answer in yellow, the rest as it is seen.

    Without colours, what is learnt stands between ⟦ and ⟧, tokens parted by │.
    """
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHATML
    encoder = Encoder(tokenizer, form, _NO_CUT)
    is_coloured = sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))
    for row in rows_of(path)[:count]:
        for name, tokens in _sequences(row, encoder):
            learnt = f"{tokens.num_learnt} of {len(tokens.ids)} tokens are learnt"
            print(f"── {row.place} · {row.shape}{name} · {learnt}")
            print(_coloured(tokens, tokenizer) if is_coloured else _marked(tokens, tokenizer), end="\n\n")


def _sequences(row: AnyRow, encoder: Encoder) -> list[tuple[str, Tokens]]:
    match row:
        case Preference():
            names = [f", answer {number}" for number in range(1, len(row.answers) + 1)]
            return list(zip(names, encoder.answers(row), strict=True))
        case Judged():
            return [(", good" if row.is_good else ", bad", encoder.judged(row))]
        case Question():
            ids = encoder.prompt(row, 0)
            return [("", Tokens(ids, [False] * len(ids)))]
        case _:
            return [("", encoder.conversation(one)) for one in as_conversations(row)]


def _pieces(tokens: Tokens, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Each token's text, and what it is."""
    found = []
    for token, learnt in zip(tokens.ids, tokens.is_learnt, strict=True):
        kind = "seen" if not learnt else "end" if token in tokenizer.end_ids else "learnt"
        text = tokenizer.decode([token], skip_special=False)
        found.append((text.replace("\x1b", "␛"), kind))  # text must not speak to the terminal
    return found


def _coloured(tokens: Tokens, tokenizer: Tokenizer) -> str:
    pieces = []
    for number, (text, kind) in enumerate(_pieces(tokens, tokenizer)):
        underline = "\x1b[4m" if number % 2 and kind != "seen" else ""  # so that neighbours can be told apart
        style = _COLOURS[kind] + underline
        shown = text.replace("\n", f"↵{_RESET}\n{style}")  # or the end of the line would be coloured too
        pieces.append(f"{style}{shown}{_RESET}")
    return "".join(pieces)


def _marked(tokens: Tokens, tokenizer: Tokenizer) -> str:
    text, before = "", "seen"
    for piece, kind in _pieces(tokens, tokenizer):
        if (before == "seen") != (kind == "seen"):
            text += "⟦" if before == "seen" else "⟧"
        elif text:
            text += "│"
        text, before = text + piece, kind
    return text + ("⟧" if before != "seen" else "")
