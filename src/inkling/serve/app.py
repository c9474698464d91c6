"""The routes of the service. The wire format is OpenAI's; see `docs/serving.md`."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as StarletteScope

import inkling
from inkling.errors import InklingError
from inkling.models import SeeingModel
from inkling.serve import answers
from inkling.serve.completions import add_completion_routes
from inkling.serve.embeddings import add_embedding_route
from inkling.serve.errors import ApiError
from inkling.serve.keys import Key, KeyStore
from inkling.serve.keys import Scope as KeyScope
from inkling.serve.plain import add_plain_generation_routes
from inkling.serve.responses import add_responses_route
from inkling.serve.service import Served, Service, check_ids
from inkling.serve.wire import DetokenizeRequest, TokenizeRequest

MAX_BODY_BYTES = 2 << 20
_OPEN_ROUTES = {"/", "/health"}
_SCOPES: dict[str, KeyScope] = {"/metrics": "metrics", "/v1/embeddings": "embed"}


def build_app(service: Service) -> FastAPI:
    """The service as an ASGI application; its engines start and stop with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for worker in service.workers:
            worker.start()
        yield
        for worker in service.workers:
            worker.stop()

    app = FastAPI(title="Inkling", version=inkling.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(_Guard, service=service)
    _add_error_handlers(app)
    _add_plain_routes(app, service)
    add_completion_routes(app, service)
    add_responses_route(app, service)
    add_plain_generation_routes(app, service)
    add_embedding_route(app, service)
    _name_models(app.openapi(), list(service.served))
    return app


def _name_models(schema: dict[str, Any], names: list[str]) -> None:
    """Let the OpenAPI description say which models there are."""
    for one in schema["components"]["schemas"].values():
        if "model" in one.get("properties", {}):
            one["properties"]["model"] |= {"enum": names}


# ---------------------------------------------------------------- who may come, and errors


class _Guard:
    """Checks sizes and keys before a route, counts answers, and names each request.

    Plain ASGI, since each piece of a stream passes through it.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: StarletteScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, service = Request(scope), self._service
        request_id = request.headers.get("x-request-id", "")[:64] or f"req-{uuid.uuid4().hex}"
        key: Key | None = None
        started_s, status = time.monotonic(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                route = getattr(scope.get("route"), "path", "other")
                service.metrics.responses[route, message["status"]] += 1
                headers = {"x-request-id": request_id, **_allowance_headers(service, key)}
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()),
                ]
            await send(message)

        try:
            _check_size(request)
            _check_host(request, service.hosts)
            if request.url.path not in _OPEN_ROUTES and service.keys is not None:
                key = _key_of(request, service.keys)
                _check_scope(request, key)
            request.state.key = key
        except ApiError as error:
            await _error_response(error)(scope, receive, named)
            return
        try:
            await self._app(scope, receive, named)
        finally:
            if service.log is not None:
                service.log(_log_line(scope, request_id, key, status, time.monotonic() - started_s))


def _log_line(scope: StarletteScope, request_id: str, key: Key | None, status: int, seconds: float) -> dict[str, Any]:
    """What is told of a request: nothing that anybody wrote."""
    line: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request_id,
        "method": scope["method"],
        "route": getattr(scope.get("route"), "path", "other"),
        "status": status,
        "seconds": round(seconds, 4),
    }
    if key is not None:
        line["key"] = key.name
    job = scope.get("state", {}).get("job")
    if job is not None:
        endings = Counter(one.finish_reason or "aborted" for one in job.sequences)
        line |= {"model": job.served.name, "endings": dict(endings), **answers.usage_counts(job.usage)}
    return line


def _check_scope(request: Request, key: Key) -> None:
    needed = _SCOPES.get(request.url.path, "generate")
    if needed not in key.scopes and not request.url.path.startswith("/v1/models"):
        raise ApiError(403, f"this key is not for {needed}, only for {', '.join(key.scopes)}", code="wrong_scope")


def _allowance_headers(service: Service, key: Key | None) -> dict[str, str]:
    """What a key may still use."""
    headers: dict[str, str] = {}
    for what in ("requests", "tokens") if key is not None else ():
        assert key is not None
        left = service.allowance.left(key, what, time.monotonic())
        limit = key.requests_per_minute if what == "requests" else key.tokens_per_minute
        if left is not None:
            headers |= {f"x-ratelimit-limit-{what}": str(limit), f"x-ratelimit-remaining-{what}": str(left)}
    return headers


def _check_size(request: Request) -> None:
    length = request.headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > MAX_BODY_BYTES):
        raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
    if length is None and request.method == "POST":
        raise ApiError(411, "the body needs a Content-Length")


def _check_host(request: Request, hosts: frozenset[str] | None) -> None:
    name = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    if hosts is not None and name.strip("[]").lower() not in hosts:
        raise ApiError(403, f"this service is not asked for as {name[:100]!r}", code="wrong_host")


def _key_of(request: Request, keys: KeyStore) -> Key:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    given = text.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    found = keys.find(given) if given else None
    if found is None:
        what = "the API key is not valid" if given else "an API key is needed: Authorization: Bearer KEY"
        raise ApiError(401, what, code="invalid_api_key")
    return found


def _error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers())


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return _error_response(error)

    @app.exception_handler(ValidationError)  # where a route makes one kind of request of another
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError | ValidationError) -> JSONResponse:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"] if part != "body")
        message = str(detail["msg"]).removeprefix("Value error, ")
        param = place.split(".")[0] if place else message.split(" ")[0] if detail["type"] == "value_error" else None
        return _error_response(ApiError(400, f"{place}: {message}" if place else message, param=param))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _error_response(ApiError(error.status_code, str(error.detail)))

    @app.exception_handler(InklingError)
    async def ours(request: Request, error: InklingError) -> JSONResponse:
        return _error_response(ApiError(400, str(error), code=_code_of(error)))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return _error_response(ApiError(500, "something went wrong here; the log of the service says what"))


def _code_of(error: InklingError) -> str | None:
    return "context_length_exceeded" if "context" in str(error) else None


# ---------------------------------------------------------------- plain routes


def _add_plain_routes(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        content = files("inkling.serve").joinpath("web/index.html").read_text(encoding="utf-8")
        inline = "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        policy = f"default-src 'none'; {inline}; connect-src 'self'; img-src data:"
        return HTMLResponse(content, headers={"content-security-policy": policy})

    @app.get("/health")
    async def health(ready: bool = False) -> JSONResponse:
        failed = [name for name, one in service.served.items() if one.worker.failure is not None]
        body = {"status": "error" if failed else "ok", "ready": not service.draining}
        return JSONResponse(body, status_code=503 if failed or (ready and service.draining) else 200)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": not service.draining}, status_code=503 if service.draining else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        engines = [worker.engine for worker in service.workers]
        gauges = {
            "running": (sum(len(engine.running) for engine in engines), "Completions being written."),
            "waiting": (sum(len(engine.waiting) for engine in engines), "Completions that wait."),
            "kv_blocks_used": (sum(engine.pool.num_used for engine in engines), "Blocks of keys and values in use."),
            "kv_blocks": (sum(engine.pool.num_blocks for engine in engines), "Blocks of keys and values."),
            "preemptions": (sum(engine.num_preempted for engine in engines), "Completions that had to make room."),
        }
        return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(one) for one in service.served.values()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        return _described(service.model(unquote(name)))

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        tokenizer = service.model(body.model or next(iter(service.served))).tokenizer
        ids = tokenizer.encode(body.content, allow_special=body.parse_special)
        return {"tokens": [tokenizer.eot_id, *ids] if body.add_special else ids}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        tokenizer = service.model(body.model or next(iter(service.served))).tokenizer
        check_ids(body.tokens, tokenizer, "tokens")
        return {"content": tokenizer.decode(body.tokens, skip_special=False)}


def _described(one: Served) -> dict[str, Any]:
    context = one.model.config.max_position_embeddings
    return {
        "id": one.name,
        "object": "model",
        "created": one.created_s,
        "owned_by": "inkling",
        "max_model_len": context,
        "has_chat_template": one.tokenizer.chat_template is not None,
        "sees_pictures": isinstance(one.model, SeeingModel),
        **({} if one.adapter is None else {"parent": one.parent}),
    }
