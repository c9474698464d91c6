"""What the service refuses, and what it bears: wrong fields, nonsense, leavers, full queues, keys, going down."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Running, runs, start

from inkling.commands import serve
from inkling.serve.app import build_app
from inkling.serve.keys import KeyStore
from inkling.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def running(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = start(tmp_path_factory.mktemp("served"), small_tokenizer)
    yield found
    found.stop()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
        ({"n": 99}, openai.BadRequestError, "n"),
        ({"logprobs": 99}, openai.BadRequestError, "logprobs"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop"),
        ({"prompt": []}, openai.BadRequestError, "prompt"),
        ({"prompt": [10**9]}, openai.BadRequestError, "prompt"),
        ({"suffix": "x"}, openai.BadRequestError, "suffix"),
        ({"best_of": 5, "stream": True}, openai.BadRequestError, "best_of"),
        ({"best_of": 2, "n": 3}, openai.BadRequestError, "best_of"),
        ({"logit_bias": {"999999": 1}}, openai.BadRequestError, "logit_bias"),
        ({"extra_body": {"tools": [{"type": "function"}]}}, openai.BadRequestError, "tools"),
        ({"extra_body": {"response_format": {"type": "xml"}}}, openai.BadRequestError, "response_format"),
        (
            {"extra_body": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}}}},
            openai.BadRequestError,
            "response_format",
        ),
        ({"extra_body": {"mirostat": 2}}, openai.BadRequestError, "mirostat"),
    ],
    ids=str,
)
def test_what_is_refused_names_the_field(
    running: Running, changes: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with running.client() as client, pytest.raises(error) as caught:
        client.completions.create(**{"model": "plain", "prompt": "a", "max_tokens": 2, **changes})
    assert caught.value.param == param  # type: ignore[attr-defined]


def test_a_prompt_that_is_too_long(running: Running) -> None:
    with running.client() as client, pytest.raises(openai.BadRequestError, match="context") as caught:
        client.completions.create(model="plain", prompt="the cat " * 400, max_tokens=2)
    assert caught.value.code == "context_length_exceeded"


def test_models_tokens_health_and_metrics(running: Running) -> None:
    with running.client() as client, httpx.Client(base_url=running.url) as plain:
        assert [model.id for model in client.models.list()] == ["plain", "chats"]
        assert client.models.retrieve("chats").id == "chats"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("a/b")
        ids = plain.post("/tokenize", json={"content": "the cat <|im_end|>"}).json()["tokens"]
        assert plain.post("/detokenize", json={"tokens": ids}).json() == {"content": "the cat <|im_end|>"}
        special = plain.post("/tokenize", json={"content": "<|im_end|>", "parse_special": True}).json()["tokens"]
        assert len(special) == 1
        assert plain.get("/health").json() == {"status": "ok", "ready": True}
        assert plain.get("/ready").status_code == 200
        client.completions.create(model="plain", prompt="the cat", max_tokens=2)
        text = plain.get("/metrics").text
        assert 'inkling_responses_total{route="/v1/completions",status="200"}' in text
        assert "inkling_kv_blocks_used 0" in text
        assert plain.get("/nothing").json()["error"]["message"] == "Not Found"
        page = plain.get("/")
        assert page.status_code == 200
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert plain.post("/v1/completions", content=b"{" * 10).json()["error"]["type"] == "invalid_request_error"
        assert plain.post("/v1/completions", content=b"x" * (3 << 20)).status_code == 413


def test_a_web_page_elsewhere_cannot_reach_it_under_its_own_name(running: Running) -> None:
    port = running.url.rpartition(":")[2]
    with httpx.Client(base_url=running.url) as client:
        for host, status in [("evil.example", 403), (f"evil.example:{port}", 403), (f"localhost:{port}", 200)]:
            assert client.get("/v1/models", headers={"host": host}).status_code == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ROUTES = ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings"]
ROUTES += ["/tokenize", "/detokenize", "/generate", "/batch_generate"]
FIELDS = [
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "temperature",
    "n",
    "stop",
    "logit_bias",
    "seed",
    "stream",
    "echo",
]
FIELDS += ["logprobs", "top_logprobs", "top_k", "stop_token_ids", "min_tokens", "stream_options", "typical_p"]
FIELDS += ["tools", "tool_choice", "response_format", "structured_outputs", "best_of", "input", "text", "instructions"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    route=st.sampled_from(ROUTES),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4) | JSON,
)
def test_nonsense_never_breaks_the_service(running: Running, route: str, body: Any) -> None:
    if isinstance(body, dict) and route.startswith("/v1"):
        body = {
            "model": "plain",
            "prompt": "a",
            "messages": [{"role": "user", "content": "a"}],
            "input": "a",
            "max_tokens": 2,
            **body,
        }
    with httpx.Client(base_url=running.url, timeout=30) as client:
        content = json.dumps(body).encode()
        answer = client.post(route, content=content, headers={"content-type": "application/json"})
        assert answer.status_code < 500, answer.text
        assert client.get("/health").status_code == 200


def test_who_leaves_a_stream_takes_up_no_room(running: Running) -> None:
    with httpx.Client(base_url=running.url) as client:
        question = {"model": "plain", "prompt": "a", "max_tokens": 100, "stream": True, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json=question) as answer:
            next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while running.service.num_open and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running.service.num_open == 0
    assert running.service.served["plain"].worker.engine.pool.num_used == 0


def test_the_smallest_temperature_is_greedy(running: Running) -> None:
    client = running.client()
    texts = [
        client.completions.create(model="plain", prompt="a", max_tokens=5, temperature=value).choices[0].text
        for value in (0, 1e-50, 5e-324)
    ]
    assert len(set(texts)) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_fails_takes_no_other_along(
    running: Running, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def broken(*_: Any) -> int:
        raise RuntimeError("out of luck")

    question = {"model": "plain", "prompt": "a", "max_tokens": 3, "stream": stream}
    with httpx.Client(base_url=running.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr("inkling.infer.engine.Completing.allowed", broken)
            assert "out of luck" in client.post("/v1/completions", json=question).text
        assert client.post("/v1/completions", json=question).status_code == 200
        assert client.get("/health").status_code == 200
    assert running.service.num_open == 0


def test_a_full_queue_says_when_to_come_back(running: Running) -> None:
    question = {"model": "plain", "prompt": "a", "max_tokens": 100, "n": 16, "ignore_eos": True}

    def ask(_: int) -> httpx.Response:
        with httpx.Client(base_url=running.url, timeout=60) as client:
            return client.post("/v1/completions", json=question)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "2"
    assert refused.json()["error"]["code"] == "overloaded"


# ---------------------------------------------------------------- keys


@pytest.fixture(scope="module")
def guarded(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, KeyStore]]:
    folder = tmp_path_factory.mktemp("guarded")
    store = KeyStore(folder / "keys")
    store.create("first")
    given = serve.Settings(runs=runs(folder, small_tokenizer)[:1], port=0, keys=folder / "keys", precision="fp32")
    found = Running(given)
    yield found, store
    found.stop()


def test_every_route_but_the_open_ones_needs_a_key(guarded: tuple[Running, KeyStore]) -> None:
    running, _ = guarded
    app = build_app(running.service)
    routes = {(method, route.path) for route in app.routes for method in getattr(route, "methods", None) or ()}
    assert len(routes) > 8
    with httpx.Client(base_url=running.url) as client:
        for method, path in sorted(routes):
            answer = client.request(method, path.replace("{name:path}", "plain"), json={})
            expected = 200 if path in ("/", "/health") else 401
            assert answer.status_code == expected, (method, path)
        assert answer.headers["x-request-id"]


def test_keys(guarded: tuple[Running, KeyStore]) -> None:
    running, store = guarded
    key = store.create("second")
    question: dict[str, Any] = {"model": "plain", "prompt": "a", "max_tokens": 2}
    with pytest.raises(openai.AuthenticationError) as caught:
        running.client(api_key="ink-wrong").completions.create(**question)
    assert caught.value.code == "invalid_api_key"
    assert running.client(api_key=key).completions.create(**question).choices
    with httpx.Client(base_url=running.url) as client:
        assert client.post("/v1/completions", json=question, headers={"x-api-key": key}).status_code == 200
    assert key.encode() not in store.path.read_bytes()
    store.revoke(store.list()[-1].id)
    with pytest.raises(openai.AuthenticationError):
        running.client(api_key=key).completions.create(**question)


def test_limits_of_a_key(guarded: tuple[Running, KeyStore]) -> None:
    running, store = guarded
    key = store.create("slow", requests_per_minute=2)
    client = running.client(api_key=key)
    question: dict[str, Any] = {"model": "plain", "prompt": "a", "max_tokens": 2}
    answer = client.completions.with_raw_response.create(**question)
    assert answer.headers["x-ratelimit-limit-requests"] == "2"
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    client.completions.create(**question)
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(**question)
    assert 25 <= int(caught.value.response.headers["retry-after"]) <= 30
    spent = store.create("little", tokens_per_minute=5)
    client = running.client(api_key=spent)
    client.completions.create(**{**question, "max_tokens": 10, "extra_body": {"ignore_eos": True}})
    with pytest.raises(openai.RateLimitError):
        client.completions.create(**question)


def test_an_open_address_needs_keys_or_a_word(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    given = serve.Settings(runs=runs(tmp_path, small_tokenizer), host="0.0.0.0", port=0, keys=tmp_path / "keys")
    with pytest.raises(serve.ConfigError, match="make a key first"):
        serve.build_service(given)
    assert serve.build_service(given.model_copy(update={"insecure": True})).keys is None


def test_open_requests_end_before_the_service_does(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    given = serve.Settings(runs=runs(tmp_path, small_tokenizer), port=0, keys=tmp_path / "keys", precision="fp32")
    running = Running(given)
    serve._drain_first(running.server, running.service, 20.0)
    question = {"model": "plain", "prompt": "a", "max_tokens": 120, "ignore_eos": True, "n": 4}
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=running.url, timeout=30) as client:
        waiting = pool.submit(client.post, "/v1/completions", json=question)
        while not running.service.num_open:
            time.sleep(0.002)
        running.server.handle_exit(15, None)
        with httpx.Client(base_url=running.url) as other:
            assert other.get("/ready").status_code == 503
            assert other.post("/v1/completions", json=question).json()["error"]["code"] == "shutting_down"
        assert waiting.result().status_code == 200
    running.thread.join(timeout=20)
    assert not running.thread.is_alive()
    assert math.isclose(running.service.num_open, 0)
