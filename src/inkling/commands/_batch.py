"""A file of requests in OpenAI's batch form, answered by the service's own routes without a network."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inkling.errors import DataError, reason_of
from inkling.progress import LiveProgress
from inkling.serve.app import build_app
from inkling.serve.service import Service

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


def read_requests(path: Path) -> list[dict[str, Any]]:
    """The lines of a batch file. Raises DataError that names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        reason = None
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: no JSON ({error})") from None
        if not isinstance(content, dict) or not isinstance(content.get("custom_id"), str):
            reason = "no custom_id"
        elif content["custom_id"] in found:
            reason = f"the custom_id {content['custom_id']!r} stands there twice"
        elif content.get("method", "POST") != "POST" or content.get("url") not in ROUTES:
            reason = f"url is one of {', '.join(ROUTES)}, method POST"
        elif not isinstance(content.get("body"), dict) or content["body"].get("stream"):
            reason = "body is the request, without stream"
        if reason is not None:
            raise DataError(f"{path}:{number}: {reason}")
        found[content["custom_id"]] = content
    if not found:
        raise DataError(f"{path} holds no requests")
    return list(found.values())


def answered(path: Path) -> set[str]:
    """Which requests an output file has answers to already. A torn last line is taken away."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    found = set(_ids_in(path, whole))
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return found


def _ids_in(path: Path, content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            yield json.loads(line)["custom_id"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}:{number} is no answer of a batch: give another --output") from None


async def answer_all(
    service: Service, requests: list[dict[str, Any]], output: Path, *, at_once: int, quiet: bool
) -> dict[int, int]:
    """Append an answer to each request, as they come. How many there were of each status."""
    app = build_app(service)
    model = next(iter(service.served))
    statuses: dict[int, int] = {}
    turn = asyncio.Semaphore(at_once)

    async def one(content: dict[str, Any]) -> None:
        async with turn:
            status, body = await _post(app, content["url"], {"model": model, **content["body"]})
        answer = {"status_code": status, "request_id": f"req-{uuid.uuid4().hex}", "body": body}
        line = {
            "id": f"batch_req_{uuid.uuid4().hex}",
            "custom_id": content["custom_id"],
            "response": answer,
            "error": None if status == 200 else body.get("error"),
        }
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        statuses[status] = statuses.get(status, 0) + 1
        progress("answering", sum(statuses.values()), len(requests))

    with output.open("a", encoding="utf-8") as file, LiveProgress(quiet=quiet) as progress:
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
            for content in requests:
                tasks.create_task(one(content))
    return statuses


async def _post(app: Any, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the application answers, asked as a server asks it (ASGI 3)."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
    }
    status, pieces, is_sent = 0, [], False

    async def receive() -> dict[str, Any]:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()  # nobody leaves
        is_sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    answer: dict[str, Any] = json.loads(b"".join(pieces))
    return status, answer
