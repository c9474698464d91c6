"""What clients send: OpenAI's bodies and a few fields more, each with its bounds.

A field that would change the output and is not supported is refused by name; those that would not are passed over.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inkling.tokenizer.chat import PICTURE

MAX_STOPS, MAX_STOP_CHARACTERS, MAX_BIASES, MAX_TOP_LOGPROBS, MAX_PROMPTS, MAX_CHOICES = 4, 64, 300, 20, 64, 16
MAX_TOOLS, MAX_GRAMMAR = 128, 1 << 16
_NAME = r"^[a-zA-Z0-9_-]+$"
_HARMLESS = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "prediction",
    "stream_obfuscation",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "suffix": (None, ""),
    "audio": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
    "previous_response_id": (None,),
    "conversation": (None,),
    "background": (None, False),
    "truncation": (None, "disabled"),
    "reasoning": (None,),
    "include": (None, []),
    "max_tool_calls": (None,),
}
"""Fields that change the output and are not supported, with the values by which they do not."""


class JsonSchema(BaseModel):
    """The schema of a response format."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = ""
    content: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """What the text has to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _with_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type json_schema")
        return self


class StructuredOutputs(BaseModel):
    """What the text has to be, as vLLM has it: one of a schema, a regular expression, some texts, or a grammar."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    schema_: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = Field(None, max_length=MAX_GRAMMAR)
    choice: list[str] | None = Field(None, min_length=1, max_length=1000)
    grammar: str | None = Field(None, max_length=MAX_GRAMMAR)

    @model_validator(mode="after")
    def _one_of_them(self) -> StructuredOutputs:
        if sum(value is not None for value in (self.schema_, self.regex, self.choice, self.grammar)) != 1:
            raise ValueError("structured_outputs is one of json, regex, choice and grammar")
        return self


class StreamOptions(BaseModel):
    """Of a stream."""

    include_usage: bool = False


class Sampling(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str = Field(min_length=1, max_length=256)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, ge=0, le=1_000_000)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=MAX_BIASES)

    @model_validator(mode="after")
    def _supported(self) -> Sampling:
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and value not in _NEUTRAL[name]:
                raise ValueError(f"{name} is not supported")
            if name not in _NEUTRAL and name not in _HARMLESS:
                raise ValueError(f"{name} is not known")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Sampling:
        if self.structured_outputs is not None and self.response_format is not None:
            raise ValueError("structured_outputs and response_format both say what the text has to be")
        return self

    @model_validator(mode="after")
    def _small_enough(self) -> Sampling:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS or any(not 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
            raise ValueError(f"stop has at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters")
        biases = self.logit_bias or {}
        if len(biases) > MAX_BIASES or any(not -100 <= value <= 100 for value in biases.values()):
            raise ValueError(f"logit_bias has at most {MAX_BIASES} tokens, with values from -100 to 100")
        if not all(key.isascii() and key.isdigit() for key in biases):
            raise ValueError("logit_bias has token ids as its keys")
        return self


class CompletionRequest(Sampling):
    """Of `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = "<|endoftext|>"
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)

    @model_validator(mode="after")
    def _best_of_enough(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError("best_of is at least n")
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise ValueError("best_of is known at the end only, and cannot be streamed")
        return self


class FunctionCall(BaseModel):
    """A call that a message holds."""

    name: str = Field(min_length=1, max_length=64, pattern=_NAME)
    arguments: str = Field(max_length=MAX_GRAMMAR)


class ToolCall(BaseModel):
    """A call that an earlier answer made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall

    def as_object(self) -> dict[str, Any]:
        """For the chat template: the arguments as an object. Raises ValueError where they are none."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {self.function.name} are no JSON object")
        return {"id": self.id, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


class Function(BaseModel):
    """What may be called."""

    name: str = Field(min_length=1, max_length=64, pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    """Which function."""

    name: str


class NamedTool(BaseModel):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: FunctionName


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None

    def text(self) -> str:
        """Its text; parts are joined, `PICTURE` in the place of pictures. Raises ValueError for other parts."""
        if not isinstance(self.content, list):
            return self.content or ""
        texts = []
        for part in self.content:
            if part.get("type") == "image_url":
                texts.append(PICTURE)
            elif part.get("type") == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
            else:
                raise ValueError("only parts of the types text and image_url are supported")
        return "".join(texts)

    def picture_urls(self) -> list[str]:
        """The URLs of its pictures. Raises ValueError for a picture without one."""
        found = []
        for part in self.content if isinstance(self.content, list) else []:
            if part.get("type") == "image_url":
                image = part.get("image_url")
                if not isinstance(image, dict) or not isinstance(image.get("url"), str):
                    raise ValueError("image_url needs an object with a url")
                found.append(image["url"])
        return found

    def as_object(self) -> dict[str, Any]:
        """For the chat template. Raises ValueError for what it cannot be given."""
        found: dict[str, Any] = {"role": self.role, "content": self.text()}
        if self.tool_calls:
            found["tool_calls"] = [call.as_object() for call in self.tool_calls]
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found


class ChatRequest(Sampling):
    """Of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _tools_that_are_there(self) -> ChatRequest:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("tools has two functions of the same name")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice names {self.tool_choice.function.name!r}, which is not among the tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        formed = self.structured_outputs is not None or (self.response_format and self.response_format.type != "text")
        if self.called_tools and formed:
            raise ValueError("tools cannot go with a response_format: set tool_choice to none")
        return self

    @property
    def called_tools(self) -> list[Tool]:
        """Those that this answer may call."""
        if self.tool_choice == "none":
            return []
        if isinstance(self.tool_choice, NamedTool):
            return [tool for tool in self.tools or () if tool.function.name == self.tool_choice.function.name]
        return self.tools or []

    @model_validator(mode="after")
    def _top_logprobs_with_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self


class TokenizeRequest(BaseModel):
    """Of `/tokenize`."""

    model_config = ConfigDict(extra="forbid")

    content: str = Field(max_length=1 << 20)
    add_special: bool = False
    parse_special: bool = False
    model: str | None = None


class DetokenizeRequest(BaseModel):
    """Of `/detokenize`."""

    model_config = ConfigDict(extra="forbid")

    tokens: list[int] = Field(max_length=1 << 18)
    model: str | None = None
