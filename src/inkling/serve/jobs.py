"""A request on its way: begun, waited for or streamed, and ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

import inkling
from inkling.errors import ConfigError
from inkling.infer.completing import Completing
from inkling.infer.grammar import ANY_OBJECT, Grammar
from inkling.infer.sampling import SamplingParams
from inkling.serve import answers
from inkling.serve.errors import ApiError
from inkling.serve.keys import Key
from inkling.serve.service import Served, Service, check_ids
from inkling.serve.wire import Sampling

_PING_S = 10.0
_LOOK_S = 0.5  # how often it is seen whether the client is still there


@dataclass(frozen=True)
class Asked:
    """What a request comes down to.

    Attributes:
        prompts: Token ids of each, without the end-of-text token before them.
        best_of: Completions of each prompt that are written; `num_choices` of them are answered with.
        num_top: Likeliest tokens to tell for each; None: no log probabilities.
        echo: Say the prompts before the completions.
        pictures: Of the prompt, in the order of their tokens.
    """

    served: Served
    body: Sampling
    prompts: Sequence[list[int]]
    max_tokens: int
    stops: Sequence[str] = ()
    best_of: int | None = None
    num_top: int | None = None
    echo: bool = False
    grammar: Callable[[], Grammar] | None = None
    pictures: Sequence[np.ndarray] = ()

    @property
    def num_choices(self) -> int:
        """Choices of each prompt."""
        return self.body.n or 1


@dataclass
class Job:
    """A request that has begun.

    Attributes:
        sequences: Its completions: those of the first prompt, then those of the next.
        echoes: What is said before each completion's own text.
        events: Choice, new text, and tokens so far.
    """

    asked: Asked
    sequences: list[Completing]
    echoes: list[str]
    events: asyncio.Queue[tuple[int, str, int]]
    id: str
    created_s: int
    key: Key | None

    @property
    def served(self) -> Served:
        """The model."""
        return self.asked.served

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens in and out."""
        return answers.usage(self.sequences, len(self.asked.prompts))

    def choices(self) -> list[int]:
        """Places in `sequences` that are answered with: of each prompt, the likeliest by token where there are more."""
        each, wanted = len(self.sequences) // len(self.asked.prompts), self.asked.num_choices
        found: list[int] = []
        for first in range(0, len(self.sequences), each):
            group = list(range(first, first + each))
            if each > wanted:
                group.sort(key=lambda number: -_mean_logprob(self.sequences[number]))
            found += group[:wanted]
        return found


def _mean_logprob(sequence: Completing) -> float:
    values = [entry.logprob or 0.0 for entry in sequence.logprobs]
    return sum(values) / max(1, len(values))


class Shape(Protocol):
    """How a kind of answer looks."""

    kind: str
    """Of the whole."""
    piece_kind: str
    """Of the pieces of a stream."""

    def opening(self, number: int) -> dict[str, Any] | None:
        """What a choice's stream begins with."""

    def piece(self, number: int, text: str, first: int, end: int) -> dict[str, Any] | None:
        """New text, of tokens `first` to `end`; None where there is nothing to say yet."""

    def choice(self, number: int, index: int) -> dict[str, Any]:
        """A whole choice."""


# ---------------------------------------------------------------- begin and end


def begin(service: Service, asked: Asked, request: Request, prefix: str) -> Job:
    """Check everything, then let the completions begin. Raises ApiError when they cannot."""
    key: Key | None = request.state.key
    served, body = asked.served, asked.body
    each = max(asked.best_of or 0, asked.num_choices)
    count = len(asked.prompts) * each
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
    params = _params_of(asked)
    sequences = []
    for number in range(count):
        one = params.model_copy(update={"seed": None if body.seed is None else (body.seed + number) % 2**63})
        teller = _teller(served, events, number)
        sequences.append(_completing(asked, asked.prompts[number // each], one, each, teller, key))
    if key is not None:
        service.allowance.begin(key, time.monotonic())
    served.worker.submit(sequences)
    texts = [served.tokenizer.decode(ids, skip_special=False) if asked.echo else "" for ids in asked.prompts]
    echoes = [text for text in texts for _ in range(each)]
    job = Job(asked, sequences, echoes, events, f"{prefix}-{uuid.uuid4().hex}", int(time.time()), key)
    request.state.job = job  # for the log
    return job


def end(service: Service, job: Job) -> None:
    """Stop what nobody waits for any more, and count what was used."""
    job.served.worker.abort([one for one in job.sequences if one.finish_reason is None])
    if job.key is not None:
        service.allowance.end(job.key, job.usage["total_tokens"], time.monotonic())


def _teller(
    served: Served, events: asyncio.Queue[tuple[int, str, int]], number: int
) -> Callable[[Completing, str], None]:
    def tell(sequence: Completing, piece: str) -> None:
        news = (number, piece, len(sequence.token_ids))
        served.worker.tell(lambda: events.put_nowait(news))

    return tell


def _completing(
    asked: Asked,
    prompt_ids: list[int],
    params: SamplingParams,
    each: int,
    on_change: Callable[[Completing, str], None],
    key: Key | None,
) -> Completing:
    served, body = asked.served, asked.body
    stop_ids = body.stop_token_ids or []
    bias = {int(number): value for number, value in (body.logit_bias or {}).items()}
    check_ids(stop_ids, served.tokenizer, "stop_token_ids")
    check_ids(list(bias), served.tokenizer, "logit_bias")
    ranked = each > asked.num_choices
    return Completing(
        served.model,
        served.tokenizer,
        [served.tokenizer.eot_id, *prompt_ids],
        params,
        on_change=on_change,
        num_top=0 if ranked and asked.num_top is None else asked.num_top,
        prompt_logprobs=asked.echo and asked.num_top is not None,
        stop_ids=stop_ids,
        min_tokens=body.min_tokens or 0,
        logit_bias=bias,
        grammar=_grammar_of(asked),
        salt=str(key.id).encode() if key is not None else b"",
        adapter=served.adapter,
        pictures=asked.pictures,
    )


def _grammar_of(asked: Asked) -> Grammar | None:
    """What the text has to be. Raises ApiError where it cannot be used."""
    if asked.grammar is not None:
        return asked.grammar()
    body = asked.body
    try:
        if body.structured_outputs is not None:
            wanted, maker = body.structured_outputs, asked.served.grammars()
            if wanted.schema_ is not None:
                return maker.json(wanted.schema_)
            if wanted.regex is not None:
                return maker.regex(wanted.regex)
            return maker.choice(wanted.choice) if wanted.choice is not None else maker.rules(wanted.grammar or "")
        if body.response_format is None or body.response_format.type == "text":
            return None
        schema = body.response_format.json_schema
        return asked.served.grammars().json(ANY_OBJECT if schema is None else schema.content)
    except ConfigError as error:
        param = "response_format" if body.structured_outputs is None else "structured_outputs"
        raise ApiError(400, str(error), param=param) from None


def _params_of(asked: Asked) -> SamplingParams:
    body = asked.body
    stops = [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
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
    context = asked.served.model.config.max_position_embeddings
    return SamplingParams(max_tokens=min(asked.max_tokens, context), stop=[*stops, *asked.stops], **known)


# ---------------------------------------------------------------- answer


async def respond(service: Service, job: Job, request: Request, shape: Shape) -> Response:
    """The answer, whole or as a stream."""
    if job.asked.body.stream:
        return EndingStream(_stream(service, job, shape), lambda: end(service, job))
    await finish(service, job, request)
    choices = [shape.choice(number, index) for index, number in enumerate(job.choices())]
    return JSONResponse({**_head(job, shape.kind), "choices": choices, "usage": job.usage})


async def finish(service: Service, job: Job, request: Request) -> None:
    """Until all completions are finished. Raises ApiError when that takes too long or something fails."""
    deadline_s = time.monotonic() + service.limits.timeout_s
    try:
        while any(one.finish_reason is None for one in job.sequences):
            try:
                async with asyncio.timeout(_LOOK_S):
                    await job.events.get()
            except TimeoutError:
                if await request.is_disconnected():
                    raise ApiError(499, "the client left") from None
            check_going_on(job, deadline_s)
    finally:
        end(service, job)
    check_drawn(job)


class EndingStream(StreamingResponse):
    """A stream of events that does something when it is over, even when the client left before its first piece."""

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _head(job: Job, kind: str) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": kind,
        "created": job.created_s,
        "model": job.served.name,
        "system_fingerprint": f"inkling-{inkling.__version__}",
    }


def check_drawn(job: Job) -> None:
    """Raises ApiError when no token could be drawn for one of the completions."""
    failure = next((one.failure for one in job.sequences if one.failure is not None), None)
    if failure is not None:
        raise ApiError(500, f"no next token could be drawn: {failure}")


def check_going_on(job: Job, deadline_s: float) -> None:
    """Raises ApiError when the engine has stopped or time is over."""
    if job.served.worker.failure is not None:
        raise ApiError(500, "the model's engine has stopped; the log of the service says why")
    if time.monotonic() > deadline_s:
        raise ApiError(504, "the request took too long", code="timeout")


async def pieces(service: Service, job: Job) -> AsyncIterator[tuple[int, str, int, int] | None]:
    """What comes, until all choices have ended: choice, new text, and tokens before and with it; None now and then.

    Where the network is slower than the model, several tokens come together. Raises ApiError as `finish`.
    """
    deadline_s = time.monotonic() + service.limits.timeout_s
    known = [0] * len(job.sequences)
    open_choices = set(range(len(job.sequences)))
    while open_choices:
        try:
            news = await _pending(job.events)
        except TimeoutError:
            check_going_on(job, deadline_s)
            yield None
            continue
        check_drawn(job)
        for number, (text, num_tokens) in news.items():
            yield number, text, known[number], num_tokens
            known[number] = num_tokens
            if is_last(job.sequences[number], num_tokens):
                open_choices.discard(number)


async def _stream(service: Service, job: Job, shape: Shape) -> AsyncIterator[str]:
    """Server-sent events."""
    options = job.asked.body.stream_options
    with_usage = options is not None and options.include_usage
    head = {**_head(job, shape.piece_kind), **({"usage": None} if with_usage else {})}
    start = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1]
    try:
        for number in range(len(job.sequences)):
            if opening := shape.opening(number):
                yield _event_with(start, opening)
        async for news in pieces(service, job):
            if news is None:
                yield ": ping\n\n"
            elif piece := shape.piece(*news):
                yield _event_with(start, piece)
        if with_usage:
            yield event({**head, "choices": [], "usage": job.usage})
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield event(error.body())


def _event_with(start: str, choice: Mapping[str, Any]) -> str:
    return f'data: {start},"choices":[{json.dumps(choice, ensure_ascii=False, separators=(",", ":"))}]}}\n\n'


def event(content: Mapping[str, Any], name: str | None = None) -> str:
    """A server-sent event."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n" if name is None else f"event: {name}\ndata: {text}\n\n"


async def _pending(events: asyncio.Queue[tuple[int, str, int]]) -> dict[int, tuple[str, int]]:
    """What has come since the last time, joined by choice: text, and tokens in all. Waits for something.

    Raises TimeoutError after a while.
    """
    if events.empty():
        async with asyncio.timeout(_PING_S):
            first = await events.get()
    else:
        first = events.get_nowait()
    found = {first[0]: first[1:]}
    while not events.empty():
        number, text, num_tokens = events.get_nowait()
        found[number] = (found.get(number, ("", 0))[0] + text, num_tokens)
    return found


def is_last(sequence: Completing, num_tokens: int) -> bool:
    """Whether the piece that came with so many tokens ends the completion."""
    return sequence.finish_reason is not None and num_tokens == len(sequence.token_ids)


def reason_of(sequence: Completing) -> str:
    """Why it ended, in OpenAI's words."""
    return "stop" if sequence.finish_reason == "stop" else "length"
