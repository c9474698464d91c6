"""From messages to tokens: the template's control tokens are control tokens, what people write is text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inkling.serve.errors import ApiError
from inkling.serve.wire import Message
from inkling.tokenizer import Tokenizer

TRANSCRIPT_STOP = "\nUser:"
_NAMES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_MAX_RENDERED = 1 << 20
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The tokens of a conversation up to where the answer begins.

    A model without a chat template continues a transcript, "User:" and "Assistant:" at the beginnings of lines.
    Raises ApiError for messages that the template refuses.
    """
    try:
        texts = [message.text() for message in messages]
    except ValueError as error:
        raise ApiError(400, str(error), param="messages") from None
    if tokenizer.chat_template is None:
        lines = [f"{_NAMES[message.role]}: {text}\n" for message, text in zip(messages, texts, strict=True)]
        return tokenizer.encode("".join(lines) + "Assistant:")
    rendered = _render(tokenizer, messages)
    ids: list[int] = []
    for number, part in enumerate(_MARKS.split(rendered)):
        ids += tokenizer.encode(texts[int(part)]) if number % 2 else tokenizer.encode(part, allow_special=True)
    return ids


def _render(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The template's text, with a mark in the place of each message's own."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> str:
        raise ApiError(400, f"the model's chat template refuses these messages: {reason}", param="messages")

    assert tokenizer.chat_template is not None
    end = next((text for text, number in tokenizer.special_tokens.items() if number == tokenizer.eot_id), "")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    marked = [
        {"role": "system" if message.role == "developer" else message.role, "content": _MARK.format(number)}
        for number, message in enumerate(messages)
    ]
    pieces, length = [], 0
    try:
        template = environment.from_string(tokenizer.chat_template)
        for piece in template.generate(messages=marked, add_generation_prompt=True, bos_token="", eos_token=end):
            pieces.append(piece)
            length += len(piece)
            if length > _MAX_RENDERED:
                refuse("it makes too much of them")
    except TemplateError as error:
        refuse(" ".join(str(error).split())[:200])
    return "".join(pieces)
