"""A conversation to compare runtimes by."""

from __future__ import annotations

from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import chat_text

CHAT = [{"role": "user", "content": "Hello! <b>2 + 2</b>?"}]


def render(tokenizer: Tokenizer) -> str:
    """The text of `CHAT` up to where the answer begins."""
    end = next((text for text, number in tokenizer.special_tokens.items() if number == tokenizer.eot_id), "")
    return chat_text(tokenizer, CHAT, bos=end)
