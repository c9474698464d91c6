"""`/v1/completions` and `/v1/chat/completions`, whole or as a stream of events."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

from inkling.data.pictures import read_picture
from inkling.errors import DataError, TokenizerError
from inkling.models import SeeingModel
from inkling.serve import answers
from inkling.serve.errors import ApiError
from inkling.serve.jobs import Asked, Job, begin, is_last, reason_of, respond
from inkling.serve.service import Served, Service, check_ids
from inkling.serve.tools import CallParser, grammar_of_calls
from inkling.serve.wire import MAX_PROMPTS, ChatRequest, CompletionRequest, NamedTool
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import TRANSCRIPT_STOP, chat_ids

MAX_PICTURES = 16
"""Of a conversation."""
_DEFAULT_MAX_TOKENS = 16  # OpenAI's, of /v1/completions


def add_completion_routes(app: FastAPI, service: Service) -> None:
    """The routes."""

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        job = begin(service, asked_for_text(service.model(body.model), body), request, "cmpl")
        return await respond(service, job, request, TextShape(job))

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        job = begin(service, asked_for_answer(service.model(body.model), body), request, "chatcmpl")
        return await respond(service, job, request, ChatShape(job, body))


def asked_for_text(served: Served, body: CompletionRequest) -> Asked:
    """What a request to go on with texts comes down to."""
    return Asked(
        served,
        body,
        _prompts_of(body, served.tokenizer),
        max_tokens=body.max_tokens or _DEFAULT_MAX_TOKENS,
        best_of=body.best_of,
        num_top=body.logprobs,
        echo=bool(body.echo),
    )


def asked_for_answer(served: Served, body: ChatRequest) -> Asked:
    """What a conversation comes down to. Raises ApiError for messages that the template refuses."""
    tools = [tool.model_dump(exclude_none=True) for tool in (body.tools or ()) if body.tool_choice != "none"]
    pictures = pictures_of(served, body)
    picture_ids = []
    if pictures:
        assert isinstance(served.model, SeeingModel)
        picture_ids = [served.model.image_token] * served.model.tokens_of_a_picture
    try:
        messages = [message.as_object() for message in body.messages]
        ids = chat_ids(served.tokenizer, messages, tools, picture_ids=picture_ids)
    except (ValueError, TokenizerError) as error:
        raise ApiError(400, str(error), param="messages") from None
    return Asked(
        served,
        body,
        [ids],
        max_tokens=body.max_completion_tokens or body.max_tokens or served.model.config.max_position_embeddings,
        stops=[TRANSCRIPT_STOP] if served.tokenizer.chat_template is None else [],
        num_top=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=grammar_of_calls(served, body),
        pictures=pictures,
    )


def pictures_of(served: Served, body: ChatRequest) -> list[np.ndarray]:
    """The pictures of a conversation. Raises ApiError where they cannot be read, and for a model that sees none."""
    try:
        urls = [url for message in body.messages for url in message.picture_urls()]
        if not urls:
            return []
        if len(urls) > MAX_PICTURES:
            raise ApiError(400, f"messages hold {len(urls)} pictures; {MAX_PICTURES} is the most", param="messages")
        if not isinstance(served.model, SeeingModel):
            raise ApiError(400, f"the model {served.name} sees no pictures", param="messages")
        return [read_picture(url, None, served.model.picture_size) for url in urls]
    except (ValueError, DataError) as error:
        raise ApiError(400, str(error), param="messages") from None


def _prompts_of(body: CompletionRequest, tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of each prompt."""
    prompt = body.prompt
    if prompt == "<|endoftext|>":
        return [[]]
    if isinstance(prompt, str):
        return [tokenizer.encode(prompt)]
    if not prompt or len(prompt) > MAX_PROMPTS:
        raise ApiError(400, f"prompt is 1 to {MAX_PROMPTS} texts or lists of token ids", param="prompt")
    if isinstance(prompt[0], int):
        prompt = [prompt]
    found = []
    for one in prompt:
        if isinstance(one, str):
            found.append(tokenizer.encode(one))
        else:
            assert isinstance(one, list)
            check_ids(one, tokenizer, "prompt")
            found.append(one[1:] if one[:1] == [tokenizer.eot_id] else one)
    return found


class ChatShape:
    """Answers of `/v1/chat/completions`."""

    kind, piece_kind = "chat.completion", "chat.completion.chunk"

    def __init__(self, job: Job, body: ChatRequest) -> None:
        self._job = job
        self._named = isinstance(body.tool_choice, NamedTool)
        self._parsers = [CallParser() if body.called_tools else None for _ in job.sequences]
        self._unsent = [0] * len(job.sequences)
        """The first token whose log probabilities were not sent."""

    def opening(self, number: int) -> dict[str, Any]:
        """The role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, number: int, text: str, first: int, end: int) -> dict[str, Any] | None:
        """New text and calls."""
        sequence, parser = self._job.sequences[number], self._parsers[number]
        ended = is_last(sequence, end)
        delta: dict[str, Any] = {}
        if parser is not None:
            before = len(parser.calls)
            text, calls = parser.push(text)
            text += parser.finish() if ended else ""
            if calls:
                delta["tool_calls"] = [{"index": before + n, **call} for n, call in enumerate(calls)]
        if text:
            delta["content"] = text
        logprobs = None
        if sequence.num_top is not None:
            entries = sequence.logprobs[self._unsent[number] : end]
            logprobs = answers.chat_logprobs(self._job.served.tokenizer, entries)
        if not delta and not ended and not logprobs:
            return None
        self._unsent[number] = end
        reason = self._reason(number) if ended else None
        return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def choice(self, number: int, index: int) -> dict[str, Any]:
        """A whole answer."""
        sequence, parser = self._job.sequences[number], self._parsers[number]
        message: dict[str, Any] = {"role": "assistant", "content": sequence.text, "refusal": None}
        if parser is not None:
            text, calls = parser.push(sequence.text)
            text += parser.finish()
            message["content"] = text or (None if calls else "")
            if calls:
                message["tool_calls"] = list(calls)
        logprobs = None
        if sequence.num_top is not None:
            logprobs = answers.chat_logprobs(self._job.served.tokenizer, sequence.logprobs)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self._reason(number)}

    def _reason(self, number: int) -> str:
        """Why it ended; OpenAI's service says "stop" after a call of the one function that was named."""
        parser, reason = self._parsers[number], reason_of(self._job.sequences[number])
        return "tool_calls" if parser is not None and parser.calls and reason == "stop" and not self._named else reason


class TextShape:
    """Answers of `/v1/completions`."""

    kind = piece_kind = "text_completion"

    def __init__(self, job: Job) -> None:
        self._job = job

    def opening(self, number: int) -> None:
        """Nothing."""

    def piece(self, number: int, text: str, first: int, end: int) -> dict[str, Any] | None:
        """New text."""
        sequence, echo = self._job.sequences[number], self._job.echoes[number] if first == 0 else ""
        ended = is_last(sequence, end)
        logprobs = None
        if self._job.asked.num_top is not None:
            entries = [*(sequence.prompt_logprobs[1:] if first == 0 else []), *sequence.logprobs[first:end]]
            offset = 0 if first == 0 else len(self._job.echoes[number]) + len(sequence.text) - len(text)
            logprobs = answers.completion_logprobs(self._job.served.tokenizer, entries, offset)
        if not text and not echo and not ended and not logprobs:
            return None
        reason = reason_of(sequence) if ended else None
        return {"index": number, "text": echo + text, "logprobs": logprobs, "finish_reason": reason}

    def choice(self, number: int, index: int) -> dict[str, Any]:
        """A whole text."""
        sequence = self._job.sequences[number]
        logprobs = None
        if self._job.asked.num_top is not None:
            entries = [*sequence.prompt_logprobs[1:], *sequence.logprobs]
            logprobs = answers.completion_logprobs(self._job.served.tokenizer, entries, 0)
        text = self._job.echoes[number] + sequence.text
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason_of(sequence)}
