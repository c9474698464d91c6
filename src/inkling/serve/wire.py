"""What clients send: OpenAI's bodies and a few fields more, each with its bounds.

A field that would change the output and is not supported is refused by name; those that would not are passed over.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_STOPS, MAX_STOP_CHARACTERS, MAX_BIASES, MAX_TOP_LOGPROBS, MAX_PROMPTS, MAX_CHOICES = 4, 64, 300, 20, 64, 16
_HARMLESS = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
    "parallel_tool_calls",
    "prediction",
    "stream_obfuscation",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "suffix": (None, ""),
    "audio": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
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
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
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
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(None, ge=0, le=1_000_000)
    response_format: ResponseFormat | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=MAX_BIASES)

    @model_validator(mode="after")
    def _supported(self) -> Sampling:
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and value not in _NEUTRAL[name]:
                raise ValueError(f"{name} is not supported")
            if name not in _NEUTRAL and name not in _HARMLESS:
                raise ValueError(f"{name} is not known")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported but for the value of n")
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


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None

    def text(self) -> str:
        """Its text; parts are joined. Raises ValueError for parts that are no text."""
        if isinstance(self.content, list):
            if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in self.content):
                raise ValueError("only parts of the type text are supported")
            return "".join(part["text"] for part in self.content)
        return self.content or ""


class ChatRequest(Sampling):
    """Of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=1024)
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

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
