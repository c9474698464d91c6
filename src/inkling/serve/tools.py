"""Calls of functions in what a model writes: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from inkling.errors import ConfigError
from inkling.infer.grammar import Grammar
from inkling.serve.errors import ApiError
from inkling.serve.service import Served
from inkling.serve.wire import ChatRequest, NamedTool, Tool
from inkling.tokenizer.chat import TOOL_CALL, TOOL_CALL_END


def grammar_of_calls(served: Served, body: ChatRequest) -> Callable[[], Grammar] | None:
    """Makes what keeps calls to their functions' schemas; None where nothing may be called."""
    tools = body.called_tools
    if not tools:
        return None
    named = isinstance(body.tool_choice, NamedTool)
    signatures = [{"name": tool.function.name, "parameters": _parameters(tool)} for tool in tools]

    def make() -> Grammar:
        try:
            return served.grammars().calls(
                signatures,
                required=named or body.tool_choice == "required",
                several=not named and body.parallel_tool_calls is not False,
                begin=TOOL_CALL,
                end=TOOL_CALL_END,
            )
        except ConfigError as error:
            raise ApiError(400, str(error), param="tools") from None

    return make


def _parameters(tool: Tool) -> dict[str, Any]:
    """The schema of a function's arguments, which are always an object."""
    given = tool.function.parameters or {"properties": {}, "additionalProperties": False}
    return {"type": "object", **given}


class CallParser:
    """Parts what is written into text and calls, as it comes. Room before and after calls is no text."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        """The calls so far, in OpenAI's form."""
        self._held = ""
        self._in_call = False

    def push(self, piece: str) -> tuple[str, Sequence[dict[str, Any]]]:
        """The text and the calls that a piece completes."""
        text, count = "", len(self.calls)
        self._held += piece
        while True:
            marker = TOOL_CALL_END if self._in_call else TOOL_CALL
            place = self._held.find(marker)
            if place < 0:
                break
            before, self._held = self._held[:place], self._held[place + len(marker) :]
            if self._in_call:
                self.calls.append(_call(before))
            else:
                text += before.rstrip()
            self._in_call = not self._in_call
        if not self._in_call:
            if self.calls and not self._held.strip():
                return text, self.calls[count:]
            keep = next((n for n in range(len(TOOL_CALL) - 1, 0, -1) if self._held.endswith(TOOL_CALL[:n])), 0)
            sure = self._held[: len(self._held) - keep].rstrip()
            text, self._held = text + sure, self._held[len(sure) :]
        return text, self.calls[count:]

    def finish(self) -> str:
        """What turned out to be text: a call that was cut off too."""
        held, self._held = self._held, ""
        if self._in_call:
            return TOOL_CALL + held
        return held if held.strip() or not self.calls else ""


def _call(text: str) -> dict[str, Any]:
    content = json.loads(text)
    arguments = json.dumps(content["arguments"], ensure_ascii=False)
    function = {"name": content["name"], "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
