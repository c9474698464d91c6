"""Rows of chats, instructions, preferences and feedback: recognised by their shape, and brought to four forms.

Messages are OpenAI's: role, content, tool_calls with arguments as objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inkling.errors import DataError
from inkling.tokenizer.chat import PICTURE

DESCRIBE = "Describe the picture."
"""What a caption answers."""

Message = dict[str, Any]
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
_FOLLOWS = {
    None: {"system", "user"},
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"tool", "assistant"},
}
"""Which role may come after which."""


@dataclass(frozen=True)
class Row:
    """What all forms have.

    Attributes:
        place: Where it comes from, for people.
        shape: How it was written, for people.
        tools: Functions that may be called, of OpenAI's form.
        fields: What else the row holds, such as what a reward needs to know.
    """

    place: str
    shape: str
    tools: list[dict[str, Any]]
    fields: dict[str, Any]


@dataclass(frozen=True)
class Conversation(Row):
    """A conversation whose answers are good ones."""

    messages: list[Message] = field(default_factory=list)


@dataclass(frozen=True)
class Preference(Row):
    """A prompt and answers to it, the better before the worse: `answers[i]` was preferred to `answers[j]` for i < j."""

    prompt: list[Message] = field(default_factory=list)
    answers: list[list[Message]] = field(default_factory=list)


@dataclass(frozen=True)
class Judged(Row):
    """A prompt and one answer, which somebody found good or bad."""

    prompt: list[Message] = field(default_factory=list)
    answer: list[Message] = field(default_factory=list)
    is_good: bool = True


@dataclass(frozen=True)
class Question(Row):
    """A prompt alone."""

    prompt: list[Message] = field(default_factory=list)


AnyRow = Conversation | Preference | Judged | Question


# ---------------------------------------------------------------- from a row to a form


def recognise(row: Mapping[str, Any], place: str) -> AnyRow:
    """The form of a row, by its names. Raises DataError with place and reason where it has none, or is no good."""
    try:
        return _recognise(dict(row), place)
    except _BadRow as reason:
        raise DataError(f"{place}: {reason}") from None


class _BadRow(Exception):
    """Why a row cannot be used."""


def _recognise(row: dict[str, Any], place: str) -> AnyRow:
    tools = _tools(row.pop("tools", None))
    if "chosen" in row and "rejected" in row:
        return _preference(row, place, tools)
    for name in ("messages", "conversations", "conversation"):
        if isinstance(row.get(name), list):
            shape = "chat messages" if name == "messages" else "ShareGPT conversations"
            messages = _with_system(row.pop("system", None), _messages(row.pop(name)))
            messages = _with_picture(row.pop("image", None), messages)
            if (is_good := _label(row)) is not None:
                prompt, answer = _split_last(messages)
                return Judged(place, f"{shape} with feedback", tools, row, prompt, answer, is_good)
            _check_conversation(messages)
            return Conversation(place, shape, tools, row, messages)
    caption = next((row[name] for name in ("caption", "text") if isinstance(row.get(name), str)), None)
    if "image" in row and caption is not None and not any(name in row for name in ("prompt", "question")):
        asked = _with_picture(row.pop("image"), [{"role": "user", "content": DESCRIBE}])
        return Conversation(place, "pictures with captions", tools, row, _joined(asked, _answer(caption)))
    if "image" in row and caption is None and not any(name in row for name in ("prompt", "question")):
        raise _BadRow("a picture without a caption or a question")
    if "instruction" in row and "output" in row:
        said = [text for name in ("instruction", "input") if (text := _text(row.pop(name, None), name))]
        prompt = _with_system(row.pop("system", None), [{"role": "user", "content": "\n\n".join(said)}])
        return Conversation(place, "instructions (Alpaca)", tools, row, _joined(prompt, _answer(row.pop("output"))))
    for first, second in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if first in row and isinstance(row.get(second), (str, list)):
            prompt = _with_picture(row.pop("image", None), _prompt(row.pop(first)))
            answer = _answer(row[second])
            if (is_good := _label(row)) is not None:
                return Judged(place, "answers with feedback", tools, row, prompt, answer, is_good)
            return Conversation(place, f"{first} and {second}", tools, row, _joined(prompt, answer))
    if "prompt" in row or "question" in row:
        prompt = _prompt(row.pop("prompt" if "prompt" in row else "question"))
        prompt = _with_picture(row.pop("image", None), prompt)
        for name in ("ranked", "responses", "completions"):
            if isinstance(row.get(name), list):
                return _ranking(row, name, prompt, place, tools)
        return Question(place, "prompts", tools, row, prompt)
    raise _BadRow(f"no chat, instruction or preference; its fields are {', '.join(map(str, row)) or 'none'}"[:300])


def _preference(row: dict[str, Any], place: str, tools: list[dict[str, Any]]) -> Preference:
    chosen, rejected = row.pop("chosen"), row.pop("rejected")
    if row.get("prompt") is not None:
        prompt, shape = _prompt(row.pop("prompt")), "preferences"
        answers = [_answer(_after(prompt, one)) for one in (chosen, rejected)]
    else:
        shape = "preferences with the prompt in both"
        if isinstance(chosen, str) and isinstance(rejected, str):
            length = _common(chosen, rejected)
            length = max(chosen.rfind(mark, 0, length) + 1 for mark in " \n")
            prompt = _prompt(chosen[:length])
            answers = [_answer(one[length:]) for one in (chosen, rejected)]
        else:
            both = _messages(chosen), _messages(rejected)
            length = _common(*both)
            while length and both[0][length - 1]["role"] == "assistant":
                length -= 1
            prompt, answers = both[0][:length], [one[length:] for one in both]
    _check_answers(prompt, answers)
    return Preference(place, shape, tools, row, prompt, answers)


def _ranking(
    row: dict[str, Any], name: str, prompt: list[Message], place: str, tools: list[dict[str, Any]]
) -> Preference:
    """Answers with scores (higher is better) or ranks (1 is best), or already in their order."""
    answers = [_answer(one) for one in row.pop(name)]
    for key, sign in (("scores", -1), ("rewards", -1), ("ranks", 1)):
        numbers = row.pop(key, None)
        if numbers is not None:
            if not isinstance(numbers, list) or len(numbers) != len(answers) or len(set(numbers)) < len(numbers):
                raise _BadRow(f"{key} must be as many different numbers as there are {name}")
            answers = [answers[place] for place in sorted(range(len(answers)), key=lambda n: sign * numbers[n])]
            break
    else:
        if name != "ranked":
            raise _BadRow(f"{name} have neither scores nor ranks")
    if len(answers) < 2:
        raise _BadRow("a ranking needs two answers at least")
    _check_answers(prompt, answers)
    return Preference(place, "rankings", tools, row, prompt, answers)


def _check_answers(prompt: list[Message], answers: list[list[Message]]) -> None:
    for answer in answers:
        _check_conversation([*prompt, *answer])
    if any(one == other for number, one in enumerate(answers) for other in answers[:number]):
        raise _BadRow("two of its answers are the same: there is nothing to prefer")


def _check_conversation(messages: Sequence[Message]) -> None:
    before = None
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in _FOLLOWS[before]:
            raise _BadRow(f"roles out of order: message {number} is of {role}, after {before or 'nothing'}")
        if role == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise _BadRow(f"message {number} is an answer without a word")
        before = role
    if before != "assistant":
        raise _BadRow("it does not end with an answer of the assistant" if messages else "it has no messages")


# ---------------------------------------------------------------- messages


def _messages(turns: Any) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _BadRow("messages must be a list of objects with role and content")
    found = []
    for number, turn in enumerate(turns, 1):
        given = turn.get("role", turn.get("from"))
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise _BadRow(f"message {number} has the role {given!r}; known are system, user, assistant and tool")
        said, pictures = _content(turn.get("content", turn.get("value")), f"message {number}")
        message: Message = {"role": role, "content": said}
        if pictures:
            message["pictures"] = pictures
        if calls := turn.get("tool_calls"):
            message["tool_calls"] = [_call(call, number) for call in calls] if isinstance(calls, list) else None
        if given == "function_call":
            message["tool_calls"], message["content"] = [_call({"function": message["content"]}, number)], ""
        found.append(message)
    return found


def _content(value: Any, name: str) -> tuple[str, list[str]]:
    """Content as text with `PICTURE` in the place of each picture, and where these are."""
    if not isinstance(value, list):
        return _text(value, name), []
    texts, pictures = [], []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("image_url", "image", "input_image"):
            texts.append(_text([part], name))
            continue
        source = next((part[key] for key in ("image_url", "image", "url", "path") if part.get(key)), None)
        source = source.get("url") if isinstance(source, dict) else source
        if not isinstance(source, str):
            raise _BadRow(f"{name} holds a picture without a file or a data URL")
        texts.append(PICTURE)
        pictures.append(source)
    return "".join(texts), pictures


def _with_picture(source: Any, messages: list[Message]) -> list[Message]:
    """A picture that stands beside its conversation goes where `<image>` is said, or before the first question."""
    if source is None:
        return messages
    if not isinstance(source, str):
        raise _BadRow("its image is no file and no data URL")
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    said = messages[first]["content"]
    said = said.replace("<image>", PICTURE, 1) if "<image>" in said else f"{PICTURE}\n{said}"
    return [*messages[:first], {**messages[first], "content": said, "pictures": [source]}, *messages[first + 1 :]]


def _text(value: Any, name: str) -> str:
    """Content: text, parts of text, or nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        return "".join(part["text"] for part in value)
    raise _BadRow(f"{name} is not text")


def _call(call: Any, number: int) -> dict[str, Any]:
    """A call of a function, its arguments as an object; both may be written as JSON."""
    try:
        function: Any = call.get("function") if isinstance(call, dict) else None
        function = json.loads(function) if isinstance(function, str) else function
        arguments = function["arguments"]
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        if isinstance(function["name"], str) and isinstance(arguments, dict):
            return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    except (ValueError, TypeError, KeyError):
        pass
    raise _BadRow(f"message {number} holds a call without a name, or whose arguments are no object")


def _tools(value: Any) -> list[dict[str, Any]]:
    try:
        found = json.loads(value) if isinstance(value, str) and value.strip() else value or []
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise _BadRow("tools must be a list of functions, or JSON of one")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in found]


def _prompt(value: Any) -> list[Message]:
    if isinstance(value, str):
        if not value.strip():
            raise _BadRow("its prompt is empty")
        return [{"role": "user", "content": value}]
    messages = _messages(value)
    if not messages or messages[-1]["role"] == "assistant":
        raise _BadRow("its prompt must end with a message that is to be answered")
    return messages


def _answer(value: Any) -> list[Message]:
    messages = [{"role": "assistant", "content": value}] if isinstance(value, str) else _messages(value)
    if not any(message["content"].strip() or message.get("tool_calls") for message in messages):
        raise _BadRow("its answer is empty")
    return messages


def _after(prompt: list[Message], value: Any) -> Any:
    """An answer in messages, without the prompt that some data sets repeat before it."""
    if isinstance(value, list) and len(value) > len(prompt) and _messages(value[: len(prompt)]) == prompt:
        return value[len(prompt) :]
    return value


def _with_system(system: Any, messages: list[Message]) -> list[Message]:
    said = _text(system, "system")
    return [{"role": "system", "content": said}, *messages] if said else messages


def _joined(prompt: list[Message], answer: list[Message]) -> list[Message]:
    messages = [*prompt, *answer]
    _check_conversation(messages)
    return messages


def _split_last(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    _check_conversation(messages)
    return messages[:-1], messages[-1:]


def _label(row: dict[str, Any]) -> bool | None:
    """Whether an answer was found good; None where nobody said so."""
    for name in ("label", "is_good", "thumbs_up"):
        value = row.get(name)
        if isinstance(value, str) and value.lower() in ("good", "bad", "desirable", "undesirable", "true", "false"):
            value = value.lower() in ("good", "desirable", "true")
        if isinstance(value, bool) or (name == "label" and value in (0, 1)):
            del row[name]
            return bool(value)
    return None


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of the common beginning."""
    pairs = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


# ---------------------------------------------------------------- from one form to another


def as_conversations(row: AnyRow) -> Iterator[Conversation]:
    """What a model can imitate in a row: its good answers. Raises DataError for a prompt alone."""
    match row:
        case Conversation():
            yield row
        case Preference():
            yield Conversation(row.place, row.shape, row.tools, row.fields, [*row.prompt, *row.answers[0]])
        case Judged():
            if row.is_good:
                yield Conversation(row.place, row.shape, row.tools, row.fields, [*row.prompt, *row.answer])
        case Question():
            raise DataError(f"{row.place}: there is no answer to learn")


def as_pairs(row: AnyRow) -> Iterator[Preference]:
    """The pairs of a better and a worse answer in a row. Raises DataError where there are none."""
    if not isinstance(row, Preference):
        raise DataError(f"{row.place}: {row.shape} hold no preference: give rows with chosen and rejected")
    for better, one in enumerate(row.answers):
        for other in row.answers[better + 1 :]:
            yield Preference(row.place, row.shape, row.tools, row.fields, row.prompt, [one, other])


def as_judged(row: AnyRow) -> Iterator[Judged]:
    """The answers of a row with what was thought of them. Raises DataError where nothing was."""
    match row:
        case Judged():
            yield row
        case Preference():
            for answer, is_good in ((row.answers[0], True), (row.answers[-1], False)):
                yield Judged(row.place, row.shape, row.tools, row.fields, row.prompt, answer, is_good)
        case _:
            raise DataError(f"{row.place}: {row.shape} hold no feedback: give rows with a label, or preferences")


def as_question(row: AnyRow) -> Question:
    """What was asked last in a row."""
    prompt = row.messages[:-1] if isinstance(row, Conversation) else row.prompt
    return Question(row.place, row.shape, row.tools, row.fields, prompt)
