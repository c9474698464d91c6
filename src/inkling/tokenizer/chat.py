"""From a conversation to tokens, by the tokenizer's chat template or, without one, as a transcript; to answer it, or to
learn its answers.

The template's control tokens are control tokens, what people write is text: the template is rendered with marks in the
place of their words, and these are encoded apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from inkling.errors import TokenizerError
from inkling.tokenizer.tokenizer import Tokenizer

TRANSCRIPT_STOP = "\nUser:"
"""Ends an answer of a model without a template."""
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
"""What calls of functions stand between, as in Hermes' and Qwen's templates."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Our own template, for tokenizers that bring none. Its two control tokens must be control tokens of theirs."""
_NAMES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_MAX_RENDERED = 1 << 20
_TEMPLATES_KEPT = 16
_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")

PICTURE = "\ufffc"
"""Stands for a picture in what people write: Unicode's object replacement character."""

Messages = Sequence[Mapping[str, Any]]


def chat_ids(
    tokenizer: Tokenizer,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    picture_ids: Sequence[int] = (),
) -> list[int]:
    """The tokens of a conversation up to where the answer begins, without a token at the front.

    Args:
        messages: Of OpenAI's form: role, content (text or None), and tool_calls with arguments as objects.
        tools: Functions that may be called, of OpenAI's form. A template that does not know of any gets them as a
            system message.
        picture_ids: What stands for a picture, where people wrote `PICTURE`; none: that is a character like others.

    Raises:
        TokenizerError: The template refuses the messages, or makes too much of them.
    """
    if tokenizer.chat_template is None:
        return tokenizer.encode(_transcript(_with_tools_as_text(_filled(messages), tools)))
    rendering = _Rendering(tokenizer, messages, tools, picture_ids)
    return rendering.ids(rendering.until(len(messages), answer_next=True))


@dataclass(frozen=True)
class Dialogue:
    """A conversation as a model learns it.

    Attributes:
        ids: Its tokens, without a token at the front.
        is_answer: Of each, whether the assistant wrote it; the token that ends an answer is among them.
    """

    ids: list[int]
    is_answer: list[bool]


def dialogue(
    tokenizer: Tokenizer,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    only_last: bool = False,
    picture_ids: Sequence[int] = (),
) -> Dialogue:
    """The tokens of a whole conversation, and which of them the assistant wrote.

    The tokens before each answer are those of `chat_ids` for the messages before it.

    Args:
        only_last: Count only the last answer.
        picture_ids: As in `chat_ids`.

    Raises:
        TokenizerError: There is no template, it refuses the messages, writes turns in another way once others follow,
            or does not end answers.
    """
    if tokenizer.chat_template is None:
        raise TokenizerError("the tokenizer has no chat template")
    rendering = _Rendering(tokenizer, messages, tools, picture_ids)
    whole = rendering.until(len(messages), answer_next=False)
    ends = [text for text, number in tokenizer.special_tokens.items() if number in tokenizer.end_ids]
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    found, place = Dialogue([], []), 0
    for number in answers[-1:] if only_last else answers:
        before, after = rendering.until(number, answer_next=True), rendering.until(number + 1, answer_next=False)
        stops = [after.find(end, len(before)) + len(end) for end in ends if after.find(end, len(before)) >= 0]
        if not (whole.startswith(before) and after.startswith(whole[: min(stops, default=0)]) and len(before) >= place):
            raise TokenizerError(
                "the chat template writes earlier turns in another way once others follow, so that no answer but the "
                "last can be learnt as it will be asked for: learn the last answers only"
            )
        if not stops:
            raise TokenizerError(
                "the chat template ends answers with no control token: a model could not learn to stop"
            )
        for text, is_answer in ((whole[place : len(before)], False), (whole[len(before) : min(stops)], True)):
            ids = rendering.ids(text)
            found.ids.extend(ids)
            found.is_answer.extend([is_answer] * len(ids))
        place = min(stops)
    rest = rendering.ids(whole[place:])
    return Dialogue([*found.ids, *rest], [*found.is_answer, *[False] * len(rest)])


def chat_text(tokenizer: Tokenizer, messages: Messages, *, bos: str = "") -> str:
    """A conversation as the tokenizer's template renders it, up to where the answer begins. Errors as `chat_ids`."""
    return _render(tokenizer, messages, (), None, answer_next=True, bos=bos)


def tool_call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as the models write it."""
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{TOOL_CALL}\n{call}\n{TOOL_CALL_END}"


def _transcript(messages: Messages) -> str:
    lines = [f"{_NAMES[str(message['role'])]}: {message['content']}\n" for message in messages]
    return "".join(lines) + "Assistant:"


def _with_tools_as_text(messages: Messages, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages for a template that knows of no tools: those that may be called, and calls that were made, as text."""
    found = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        written = [tool_call_text(call["name"], call["arguments"]) for call in calls]
        content = "\n".join([message["content"], *written] if message["content"] else written or [""])
        found.append({"role": message["role"], "content": content})
    if tools:
        signatures = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        form = '{"name": NAME, "arguments": {…}}'
        told = (
            f"Functions that can be called:\n{signatures}\nA call is written so:\n{TOOL_CALL}\n{form}\n{TOOL_CALL_END}"
        )
        if found and found[0]["role"] in ("system", "developer"):
            found[0]["content"] += f"\n\n{told}"
        else:
            found.insert(0, {"role": "system", "content": told})
    return found


def _filled(messages: Messages) -> list[dict[str, Any]]:
    return [{**message, "content": message.get("content") or ""} for message in messages]


class _Rendering:
    """A conversation in its template, with marks in the place of what people wrote."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]],
        picture_ids: Sequence[int] = (),
    ) -> None:
        assert tokenizer.chat_template is not None
        self._picture_ids = picture_ids
        plain = _filled(messages)
        self._num_added = 0
        if "tools" not in _names_in(tokenizer.chat_template):
            plain, tools = _with_tools_as_text(plain, tools), ()
            self._num_added = len(plain) - len(messages)
        self._tokenizer = tokenizer
        self._marks: _Marks | None = _Marks(tokenizer)
        self._messages: Messages = self._marks.marked(plain)
        self._tools = self._marks.marked(list(tools))
        marks, rendered = self._marks, self.until(len(messages), answer_next=True)
        if marks.restore(rendered) == _render(tokenizer, plain, tools, None, answer_next=True):
            return
        # The template looks into what people write (trims it, splits it), so that marks would change what it does.
        if picture_ids:
            raise TokenizerError("the chat template changes what people write, so that pictures have no place in it")
        if any(special in text for text in marks.texts for special in tokenizer.special_tokens):
            raise TokenizerError("the chat template changes what people write, and a message holds a control token")
        self._marks, self._messages, self._tools = None, plain, list(tools)

    def until(self, number: int, *, answer_next: bool) -> str:
        """The first `number` messages, and where asked the beginning of the assistant's turn after them."""
        messages = self._messages[: number + self._num_added]
        return _render(self._tokenizer, messages, self._tools, self._marks, answer_next=answer_next)

    def ids(self, text: str) -> list[int]:
        """The tokens of a part: the template's control tokens, and people's words as text."""
        ids: list[int] = []
        for number, piece in enumerate(_MARKS.split(text) if self._marks else [text]):
            if self._marks is not None and number % 2:
                ids += self._words(self._marks.texts[int(piece)])
            else:
                ids += self._tokenizer.encode(piece, allow_special=True)
        return ids

    def _words(self, text: str) -> list[int]:
        """What a person wrote, pictures in their places."""
        if not self._picture_ids:
            return self._tokenizer.encode(text)
        first, *others = text.split(PICTURE)
        ids = self._tokenizer.encode(first)
        for part in others:
            ids += [*self._picture_ids, *self._tokenizer.encode(part)]
        return ids


class _Marks:
    """What people wrote, by number; a mark with the number stands in its place."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._special = tuple(tokenizer.special_tokens)

    def marked(self, value: Any) -> Any:
        """The same with a mark in the place of each string but roles and kinds, as far as they are plain words."""
        if isinstance(value, str):
            if value not in self._numbers:  # the same words have the same mark, however often they are rendered
                self._numbers[value] = len(self.texts)
                self.texts.append(value)
            return _MARK.format(self._numbers[value])
        if isinstance(value, Mapping):
            for key in value:
                if any(special in key for special in self._special):
                    raise TokenizerError("a name in the messages or tools holds a control token")
            return {key: item if self._is_kind(key, item) else self.marked(item) for key, item in value.items()}
        return [self.marked(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _is_kind(self, key: str, value: Any) -> bool:
        """Whether a template may look at the value: what it compares must not be a mark."""
        return key in ("role", "type") and not any(special in str(value) for special in self._special)

    def restore(self, value: Any) -> Any:
        """The same with the texts again."""
        if isinstance(value, str):
            return _MARKS.sub(lambda found: self.texts[int(found.group(1))], value)
        if isinstance(value, Mapping):
            return {key: self.restore(item) for key, item in value.items()}
        return [self.restore(item) for item in value] if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=_TEMPLATES_KEPT)
def _names_in(template: str) -> set[str]:
    """The variables that a template asks for."""
    from jinja2 import TemplateError, meta

    try:
        return meta.find_undeclared_variables(_environment().parse(template))
    except TemplateError as error:
        raise _refusal(str(error)) from None


def _refusal(reason: str) -> TokenizerError:
    return TokenizerError(f"the model's chat template refuses these messages: {' '.join(reason.split())[:200]}")


def _environment() -> Any:
    """A sandbox with what `transformers` offers to templates."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def refuse(reason: str) -> str:
        raise _refusal(str(reason))

    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


@lru_cache(maxsize=_TEMPLATES_KEPT)
def _compiled(template: str) -> Any:
    """Compiling takes ten times as long as rendering."""
    return _environment().from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    marks = _marks_in_use.get()
    restored = value if marks is None else marks.restore(value)
    text = json.dumps(restored, ensure_ascii=ensure_ascii, indent=indent, **more)
    return text if marks is None else str(marks.marked(text))


_marks_in_use: ContextVar[_Marks | None] = ContextVar("marks_in_use", default=None)
"""Those of the conversation that is rendered."""


def _render(
    tokenizer: Tokenizer,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]],
    marks: _Marks | None,
    *,
    answer_next: bool,
    bos: str = "",
) -> str:
    from jinja2 import TemplateError

    assert tokenizer.chat_template is not None
    token = _marks_in_use.set(marks)
    end = next((text for text, number in tokenizer.special_tokens.items() if number == tokenizer.eot_id), "")
    known = [{**one, "role": "system" if one["role"] == "developer" else one["role"]} for one in messages]
    pieces, length = [], 0
    try:
        for piece in _compiled(tokenizer.chat_template).generate(
            messages=known, tools=list(tools) or None, add_generation_prompt=answer_next, bos_token=bos, eos_token=end
        ):
            pieces.append(piece)
            length += len(piece)
            if length > _MAX_RENDERED:
                raise _refusal("it makes too much of them")
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise _refusal(str(error) or type(error).__name__) from None
    finally:
        _marks_in_use.reset(token)
    return "".join(pieces)
