"""`/v1/embeddings`: the mean of a text's hidden states after the last norm, brought to length 1."""

from __future__ import annotations

import asyncio
import base64
import time
from functools import partial
from typing import Any, Literal

import torch
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from inkling import peft
from inkling.infer.generate import check_room
from inkling.serve.errors import ApiError
from inkling.serve.service import Served, Service, check_ids
from inkling.serve.wire import MAX_PROMPTS


class EmbeddingRequest(BaseModel):
    """Of `/v1/embeddings`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=256)
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: str | None = None


def add_embedding_route(app: FastAPI, service: Service) -> None:
    """The route."""

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
        served = service.model(body.model)
        inputs = _ids_of(body, served)
        key = request.state.key
        if service.draining:
            raise ApiError(503, "the service is going down", code="shutting_down", retry_after_s=5)
        if key is not None and (wait_s := service.allowance.wait_s(key, time.monotonic())) > 0:
            service.metrics.rejections += 1
            raise ApiError(429, "this key's limit is reached", code="rate_limit_exceeded", retry_after_s=wait_s)
        num_tokens = sum(map(len, inputs))
        if key is not None:
            service.allowance.begin(key, time.monotonic())
        try:
            calls = [served.worker.call(partial(embed, served, ids)) for ids in inputs]
            vectors = [await asyncio.wrap_future(call) for call in calls]
        finally:
            if key is not None:
                service.allowance.end(key, num_tokens, time.monotonic())
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, body.encoding_format)}
            for number, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
        return {"object": "list", "data": data, "model": served.name, "usage": usage}


def _ids_of(body: EmbeddingRequest, served: Served) -> list[list[int]]:
    given: Any = body.input
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    if not given or len(given) > MAX_PROMPTS:
        raise ApiError(400, f"input is 1 to {MAX_PROMPTS} texts or lists of token ids", param="input")
    found = []
    for one in given:
        ids = served.tokenizer.encode(one) if isinstance(one, str) else one
        check_ids(ids, served.tokenizer, "input")
        if not ids:
            raise ApiError(400, "an input is empty", param="input")
        check_room(served.model, len(ids) + 1)
        found.append(ids)
    return found


@torch.inference_mode()
def embed(served: Served, ids: list[int]) -> torch.Tensor:
    """The vector of a text, (C) fp32."""
    row = torch.tensor([[served.tokenizer.eot_id, *ids]], device=served.model.device)
    with peft.selected(served.model, served.adapter):
        hidden = served.model.hidden(row)[0, 1:].float().mean(dim=0)  # (1, T, C) -> (C)
    unit: torch.Tensor = (hidden / hidden.norm().clamp(min=1e-12)).cpu()
    return unit


def _encoded(vector: torch.Tensor, form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    values: list[float] = vector.tolist()
    return values
