"""`/generate` and `/batch_generate`: plain JSON, for scripts that want no client."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from pydantic import Field

from inkling.serve.completions import asked_for_text
from inkling.serve.errors import ApiError
from inkling.serve.jobs import begin, finish, reason_of
from inkling.serve.service import Service
from inkling.serve.wire import MAX_PROMPTS, CompletionRequest, Sampling

_DEFAULT_MAX_TOKENS = 200


class GenerateRequest(Sampling):
    """Of `/generate`."""

    model: str = Field("", max_length=256)
    prompt: str = ""


class BatchRequest(Sampling):
    """Of `/batch_generate`."""

    model: str = Field("", max_length=256)
    prompts: list[str] = Field(min_length=1, max_length=MAX_PROMPTS)


def add_plain_generation_routes(app: FastAPI, service: Service) -> None:
    """The routes."""

    @app.post("/generate")
    async def one(body: GenerateRequest, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = (await _results(service, body, [body.prompt], request))[0]
        return found

    @app.post("/batch_generate")
    async def many(body: BatchRequest, request: Request) -> dict[str, Any]:
        return {"results": await _results(service, body, body.prompts, request)}


async def _results(service: Service, body: Sampling, prompts: list[str], request: Request) -> list[dict[str, Any]]:
    """What is written after each prompt."""
    if body.stream or (body.n or 1) > 1:
        param = "stream" if body.stream else "n"
        raise ApiError(400, f"{param} is a field of /v1/completions, not of this route", param=param)
    given = body.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    given["model"] = body.model or next(iter(service.served))
    given["max_tokens"] = body.max_tokens or _DEFAULT_MAX_TOKENS
    as_text = CompletionRequest(**given, prompt=prompts)
    job = begin(service, asked_for_text(service.model(as_text.model), as_text), request, "gen")
    await finish(service, job, request)
    return [
        {
            "text": sequence.text,
            "num_prompt_tokens": len(sequence.prompt_ids) - 1,
            "num_tokens": len(sequence.token_ids),
            "finish_reason": reason_of(sequence),
            "seed": sequence.seed,
        }
        for sequence in job.sequences
    ]
