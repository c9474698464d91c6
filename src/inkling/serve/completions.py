"""`/v1/completions` and `/v1/chat/completions`, whole or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

import inkling
from inkling.errors import ConfigError
from inkling.infer.engine import Completing
from inkling.infer.grammar import ANY_OBJECT, Grammar
from inkling.infer.sampling import SamplingParams
from inkling.serve import answers
from inkling.serve.errors import ApiError
from inkling.serve.keys import Key
from inkling.serve.prompts import TRANSCRIPT_STOP, chat_ids
from inkling.serve.service import Served, Service, check_ids
from inkling.serve.wire import MAX_PROMPTS, ChatRequest, CompletionRequest, Sampling
from inkling.tokenizer import Tokenizer

_PING_S = 10.0
_DEFAULT_MAX_TOKENS = 16  # OpenAI's, of /v1/completions


@dataclass
class _Job:
    """A request on its way.

    Attributes:
        sequences: Its completions: the choices of the first prompt, then those of the next.
        echoes: What is said before each completion's own text.
    """

    served: Served
    body: Sampling
    sequences: list[Completing]
    events: asyncio.Queue[tuple[int, str, int]]
    num_prompts: int
    echoes: list[str]
    id: str
    created_s: int
    key: Key | None


def add_completion_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        served = service.model(body.model)
        prompts = _prompts_of(body, served.tokenizer)
        job = _begin(service, served, body, prompts, request, "cmpl")
        return await _respond(service, job, request, _completion_choice, _completion_piece, "text_completion")

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        served = service.model(body.model)
        prompts = [chat_ids(served.tokenizer, body.messages)]
        job = _begin(service, served, body, prompts, request, "chatcmpl")
        return await _respond(service, job, request, _chat_choice, _chat_piece, "chat.completion")


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


def _begin(
    service: Service, served: Served, body: Sampling, prompts: list[list[int]], request: Request, prefix: str
) -> _Job:
    """Check everything, then let the completions begin. Raises ApiError when they cannot."""
    key: Key | None = request.state.key
    count = len(prompts) * (body.n or 1)
    if service.draining:
        raise ApiError(503, "the service is going down", code="shutting_down", retry_after_s=5)
    if served.worker.failure is not None:
        raise ApiError(503, "the model's engine has stopped", code="overloaded", retry_after_s=30)
    if not served.worker.has_room(count):
        service.metrics.rejections += 1
        raise ApiError(503, "too many requests are waiting", code="overloaded", retry_after_s=2)
    if key is not None and (wait_s := service.allowance.wait_s(key, time.monotonic())) > 0:
        service.metrics.rejections += 1
        raise ApiError(429, "this key's limit is reached", code="rate_limit_exceeded", retry_after_s=wait_s)
    events: asyncio.Queue[tuple[int, str, int]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    params = _params_of(body, served)
    echo = isinstance(body, CompletionRequest) and bool(body.echo)
    sequences = []
    for number in range(count):
        prompt_ids = prompts[number // (body.n or 1)]
        one = params.model_copy(update={"seed": None if body.seed is None else (body.seed + number) % 2**63})
        sequences.append(_completing(served, body, prompt_ids, one, echo, _teller(loop, events, number), key))
    if key is not None:
        service.allowance.begin(key, time.monotonic())
    served.worker.submit(sequences)
    texts = [served.tokenizer.decode(ids, skip_special=False) if echo else "" for ids in prompts]
    echoes = [text for text in texts for _ in range(body.n or 1)]
    return _Job(
        served,
        body,
        sequences,
        events,
        len(prompts),
        echoes,
        f"{prefix}-{uuid.uuid4().hex}",
        int(time.time()),
        key,
    )


def _teller(
    loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[int, str, int]], number: int
) -> Callable[[Completing, str], None]:
    def tell(sequence: Completing, piece: str) -> None:
        loop.call_soon_threadsafe(events.put_nowait, (number, piece, len(sequence.token_ids)))

    return tell


def _completing(
    served: Served,
    body: Sampling,
    prompt_ids: list[int],
    params: SamplingParams,
    echo: bool,
    on_change: Callable[[Completing, str], None],
    key: Key | None,
) -> Completing:
    num_top = body.logprobs if isinstance(body, CompletionRequest) else None
    if isinstance(body, ChatRequest) and body.logprobs:
        num_top = body.top_logprobs or 0
    stop_ids = body.stop_token_ids or []
    bias = {int(number): value for number, value in (body.logit_bias or {}).items()}
    check_ids(stop_ids, served.tokenizer, "stop_token_ids")
    check_ids(list(bias), served.tokenizer, "logit_bias")
    return Completing(
        served.model,
        served.tokenizer,
        [served.tokenizer.eot_id, *prompt_ids],
        params,
        on_change=on_change,
        num_top=num_top,
        prompt_logprobs=echo and num_top is not None,
        stop_ids=stop_ids,
        min_tokens=body.min_tokens or 0,
        logit_bias=bias,
        grammar=_grammar_of(body, served),
        salt=str(key.id).encode() if key is not None else b"",
    )


def _grammar_of(body: Sampling, served: Served) -> Grammar | None:
    """What the text has to be. Raises ApiError for a schema that cannot be used."""
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    schema = ANY_OBJECT if wanted.json_schema is None else wanted.json_schema.content
    try:
        return served.grammars().json(schema)
    except ConfigError as error:
        raise ApiError(400, str(error), param="response_format") from None


def _params_of(body: Sampling, served: Served) -> SamplingParams:
    stops = [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
    context = served.model.config.max_position_embeddings
    if isinstance(body, ChatRequest):
        max_tokens = body.max_completion_tokens or body.max_tokens or context
        stops += [TRANSCRIPT_STOP] if served.tokenizer.chat_template is None else []
    else:
        max_tokens = body.max_tokens or _DEFAULT_MAX_TOKENS
    given = {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": body.top_p,
        "top_k": None if body.top_k is None else max(0, body.top_k),
        "min_p": body.min_p,
        "typical_p": body.typical_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "ignore_eos": body.ignore_eos,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return SamplingParams(max_tokens=min(max_tokens, context), stop=stops, **known)


_Shape = Callable[[_Job, int], dict[str, Any]]
_PieceShape = Callable[[_Job, int, str, int, int], dict[str, Any]]


async def _respond(
    service: Service, job: _Job, request: Request, choice: _Shape, piece: _PieceShape, kind: str
) -> Response:
    if job.body.stream:
        events = _stream(service, job, piece, f"{kind}.chunk" if kind == "chat.completion" else kind)
        return _EndingStream(events, lambda: _end(service, job))
    try:
        await _wait(service, job, request)
    finally:
        _end(service, job)
    _check_drawn(job)
    body = {**_head(job, kind), "choices": [choice(job, number) for number in range(len(job.sequences))]}
    return JSONResponse({**body, "usage": answers.usage(job.sequences, job.num_prompts)})


class _EndingStream(StreamingResponse):
    """A stream of events that does something when it is over, even when the client left before its first piece."""

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _head(job: _Job, kind: str) -> dict[str, Any]:
    fingerprint = f"inkling-{inkling.__version__}"
    return {
        "id": job.id,
        "object": kind,
        "created": job.created_s,
        "model": job.served.name,
        "system_fingerprint": fingerprint,
    }


def _end(service: Service, job: _Job) -> None:
    job.served.worker.abort([one for one in job.sequences if one.finish_reason is None])
    if job.key is not None:
        tokens = answers.usage(job.sequences, job.num_prompts)["total_tokens"]
        service.allowance.end(job.key, tokens, time.monotonic())


async def _wait(service: Service, job: _Job, request: Request) -> None:
    """Until all completions are finished. Raises ApiError when that takes too long or the engine fails."""
    deadline_s = time.monotonic() + service.limits.timeout_s
    while any(one.finish_reason is None for one in job.sequences):
        try:
            await asyncio.wait_for(job.events.get(), timeout=0.5)
        except TimeoutError:
            _check_going_on(job, deadline_s)
            if await request.is_disconnected():
                raise ApiError(499, "the client left") from None
        if time.monotonic() > deadline_s:
            _check_going_on(job, deadline_s)


def _check_drawn(job: _Job) -> None:
    failure = next((one.failure for one in job.sequences if one.failure is not None), None)
    if failure is not None:
        raise ApiError(500, f"no next token could be drawn: {failure}")


def _check_going_on(job: _Job, deadline_s: float) -> None:
    if job.served.worker.failure is not None:
        raise ApiError(500, "the model's engine has stopped; the log of the service says why")
    if time.monotonic() > deadline_s:
        raise ApiError(504, "the request took too long", code="timeout")


async def _stream(service: Service, job: _Job, shape: _PieceShape, kind: str) -> AsyncIterator[str]:
    """Server-sent events. When the client leaves, the completions end."""
    options = job.body.stream_options
    with_usage = options is not None and options.include_usage
    head = {**_head(job, kind), **({"usage": None} if with_usage else {})}
    sent_tokens = [0] * len(job.sequences)
    open_choices = set(range(len(job.sequences)))
    deadline_s = time.monotonic() + service.limits.timeout_s
    try:
        if kind.startswith("chat"):
            for number in range(len(job.sequences)):
                delta = {"role": "assistant", "content": ""}
                choice = {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
                yield _event({**head, "choices": [choice]})
        while open_choices:
            try:
                pending = await _pending(job.events)
            except TimeoutError:
                _check_going_on(job, deadline_s)
                yield ": ping\n\n"
                continue
            _check_drawn(job)
            for number, (text, num_tokens) in pending.items():
                ended = _is_last(job.sequences[number], num_tokens)
                choice = shape(job, number, text, sent_tokens[number], num_tokens)
                if text or ended or choice.get("logprobs"):
                    yield _event({**head, "choices": [choice]})
                    sent_tokens[number] = num_tokens
                if ended:
                    open_choices.discard(number)
        if with_usage:
            yield _event({**head, "choices": [], "usage": answers.usage(job.sequences, job.num_prompts)})
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event(error.body())


async def _pending(events: asyncio.Queue[tuple[int, str, int]]) -> dict[int, tuple[str, int]]:
    """What has come since the last time, joined by choice: text, and tokens in all. Waits for something.

    Where the network is slower than the model, several tokens go out together. Raises TimeoutError after a while.
    """
    if events.empty():
        first = await asyncio.wait_for(events.get(), timeout=_PING_S)
    else:
        first = events.get_nowait()
    found = {first[0]: first[1:]}
    while not events.empty():
        number, text, num_tokens = events.get_nowait()
        found[number] = (found.get(number, ("", 0))[0] + text, num_tokens)
    return found


def _is_last(sequence: Completing, num_tokens: int) -> bool:
    """Whether the piece that came with so many tokens ends the completion."""
    return sequence.finish_reason is not None and num_tokens == len(sequence.token_ids)


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


# ---------------------------------------------------------------- shapes of choices


def _reason(sequence: Completing) -> str | None:
    return "length" if sequence.finish_reason == "aborted" else sequence.finish_reason


def _chat_choice(job: _Job, number: int) -> dict[str, Any]:
    sequence = job.sequences[number]
    logprobs = None
    if sequence.num_top is not None:
        logprobs = answers.chat_logprobs(job.served.tokenizer, sequence.logprobs)
    message = {"role": "assistant", "content": sequence.text, "refusal": None}
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": _reason(sequence)}


def _chat_piece(job: _Job, number: int, text: str, first: int, end: int) -> dict[str, Any]:
    sequence = job.sequences[number]
    ended = _is_last(sequence, end)
    logprobs = None
    if sequence.num_top is not None:
        logprobs = answers.chat_logprobs(job.served.tokenizer, sequence.logprobs[first:end])
    reason = _reason(sequence) if ended else None
    return {"index": number, "delta": {"content": text} if text else {}, "logprobs": logprobs, "finish_reason": reason}


def _completion_choice(job: _Job, number: int) -> dict[str, Any]:
    sequence = job.sequences[number]
    logprobs = None
    if sequence.num_top is not None:
        entries = [*sequence.prompt_logprobs[1:], *sequence.logprobs]
        logprobs = answers.completion_logprobs(job.served.tokenizer, entries, 0)
    text = job.echoes[number] + sequence.text
    return {"index": number, "text": text, "logprobs": logprobs, "finish_reason": _reason(sequence)}


def _completion_piece(job: _Job, number: int, text: str, first: int, end: int) -> dict[str, Any]:
    sequence = job.sequences[number]
    ended = _is_last(sequence, end)
    echo = job.echoes[number] if first == 0 else ""
    logprobs = None
    if sequence.num_top is not None:
        entries = [*(sequence.prompt_logprobs[1:] if first == 0 else []), *sequence.logprobs[first:end]]
        offset = 0 if first == 0 else len(job.echoes[number]) + len(sequence.text) - len(text)
        logprobs = answers.completion_logprobs(job.served.tokenizer, entries, offset)
    reason = _reason(sequence) if ended else None
    return {"index": number, "text": echo + text, "logprobs": logprobs, "finish_reason": reason}
