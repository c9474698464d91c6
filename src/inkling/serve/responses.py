"""`/v1/responses`: the part of it that is text in, text out, with nothing kept between requests."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from inkling.serve.completions import asked_for_answer
from inkling.serve.errors import ApiError
from inkling.serve.jobs import EndingStream, Job, begin, end, event, finish, pieces, reason_of
from inkling.serve.service import Service
from inkling.serve.wire import ChatRequest, Message, ResponseFormat, Sampling


class _Item(BaseModel):
    """A message of the input."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]

    def as_message(self) -> Message:
        """As chats have it."""
        parts = [{"type": "text", "text": self.content}] if isinstance(self.content, str) else self.content
        if any(part.get("type") not in ("text", "input_text", "output_text") for part in parts):
            raise ApiError(400, "only parts of the type input_text and output_text are supported", param="input")
        return Message(role=self.role, content=[{**part, "type": "text"} for part in parts])


class _Format(BaseModel):
    """What the text has to be."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    content: dict[str, Any] | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _with_its_schema(self) -> _Format:
        if (self.type == "json_schema") != (self.content is not None):
            raise ValueError("schema goes with the type json_schema")
        return self


class _Text(BaseModel):
    """Of the text that comes out."""

    model_config = ConfigDict(extra="forbid")

    format: _Format = _Format()
    verbosity: None = None


class ResponsesRequest(Sampling):
    """Of `/v1/responses`."""

    input: str | list[_Item] = Field(min_length=1, max_length=1 << 20)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000)
    text: _Text = _Text()
    tools: list[Any] = Field([], max_length=0)
    tool_choice: Literal["none", "auto"] = "auto"

    @model_validator(mode="after")
    def _one_answer(self) -> ResponsesRequest:
        if (self.n or 1) > 1:
            raise ValueError("n is not a field of responses")
        return self

    def as_chat(self) -> ChatRequest:
        """The same as a chat."""
        system = [] if self.instructions is None else [Message(role="system", content=self.instructions)]
        given = [_Item(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        form = self.text.format
        schema = None if form.content is None else {"name": form.name, "schema": form.content}
        wanted = ResponseFormat.model_validate({"type": form.type, "json_schema": schema})
        shared = self.model_dump(
            include=set(Sampling.model_fields) - {"max_tokens", "stream_options"}, exclude_none=True
        )
        return ChatRequest(
            **{**shared, **({} if form.type == "text" else {"response_format": wanted})},
            messages=[*system, *(item.as_message() for item in given)],
            max_tokens=self.max_output_tokens or self.max_tokens,
        )


def add_responses_route(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.post("/v1/responses")
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        job = begin(service, asked_for_answer(service.model(body.model), body.as_chat()), request, "resp")
        item_id = f"msg_{uuid.uuid4().hex}"
        if body.stream:
            return EndingStream(_stream(service, job, body, item_id), lambda: end(service, job))
        await finish(service, job, request)
        return JSONResponse(_response(job, body, item_id, job.sequences[0].text))


def _status(job: Job) -> str:
    if job.sequences[0].finish_reason is None:
        return "in_progress"
    return "completed" if reason_of(job.sequences[0]) == "stop" else "incomplete"


def _item(item_id: str, status: str, text: str | None) -> dict[str, Any]:
    content = [] if text is None else [_part(text)]
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(job: Job, body: ResponsesRequest, item_id: str, text: str | None) -> dict[str, Any]:
    status = "in_progress" if text is None else _status(job)
    used = job.usage
    usage = {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {**used["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["total_tokens"],
    }
    return {
        "id": job.id,
        "object": "response",
        "created_at": job.created_s,
        "completed_at": int(time.time()) if status == "completed" else None,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": job.served.name,
        "output": [] if text is None else [_item(item_id, status, text)],
        "parallel_tool_calls": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "text": {"format": body.text.format.model_dump(by_alias=True, exclude_none=True)},
        "tool_choice": body.tool_choice,
        "tools": [],
        "truncation": "disabled",
        "store": False,
        "metadata": {},
        "usage": None if text is None else usage,
    }


async def _stream(service: Service, job: Job, body: ResponsesRequest, item_id: str) -> AsyncIterator[str]:
    number = 0

    def told(kind: str, **content: Any) -> str:
        nonlocal number
        number += 1
        return event({"type": kind, "sequence_number": number - 1, **content}, name=kind)

    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    text = ""
    try:
        begun = _response(job, body, item_id, None)
        yield told("response.created", response=begun)
        yield told("response.in_progress", response=begun)
        yield told("response.output_item.added", output_index=0, item=_item(item_id, "in_progress", None))
        yield told("response.content_part.added", **place, part=_part(""))
        async for news in pieces(service, job):
            if news is None:
                yield ": ping\n\n"
            elif news[1]:
                text += news[1]
                yield told("response.output_text.delta", **place, delta=news[1], logprobs=[])
        yield told("response.output_text.done", **place, text=text, logprobs=[])
        yield told("response.content_part.done", **place, part=_part(text))
        yield told("response.output_item.done", output_index=0, item=_item(item_id, _status(job), text))
        whole = _response(job, body, item_id, text)
        yield told(f"response.{whole['status']}", response=whole)
    except ApiError as error:
        yield told("error", code=error.code, message=str(error), param=error.param)
