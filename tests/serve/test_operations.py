"""What operators need: scopes of keys, logs, readiness, the dashboard, and batches from a file."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Running, runs

from inkling.commands import generate, keys_create, keys_list, serve
from inkling.errors import DataError
from inkling.serve.keys import SCOPES, KeyStore
from inkling.tokenizer import Tokenizer

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"


@pytest.fixture
def guarded(small_tokenizer: Tokenizer, tmp_path: Path) -> Any:
    """A service with keys that tells its log."""
    keys_create.run(keys_create.Settings(name="first", keys=tmp_path / "keys"))
    given = serve.Settings(
        runs=runs(tmp_path, small_tokenizer)[:1], port=0, keys=tmp_path / "keys", precision="fp32", log="json"
    )
    found = Running(given)
    yield found
    found.stop()


def test_what_a_key_opens(guarded: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded.service.keys is not None
    store = guarded.service.keys
    keys = {scope: store.create(scope, scopes=[scope]) for scope in SCOPES}
    text = {"model": "plain", "prompt": "a", "max_tokens": 2}
    routes = {
        "generate": ("POST", "/v1/completions", text),
        "embed": ("POST", "/v1/embeddings", {"model": "plain", "input": "a"}),
        "metrics": ("GET", "/metrics", None),
    }
    with httpx.Client(base_url=guarded.url) as client:
        for scope, key in keys.items():
            headers = {"authorization": f"Bearer {key}"}
            for needed, (method, path, body) in routes.items():
                answer = client.request(method, path, json=body, headers=headers)
                assert answer.status_code == (200 if needed == scope else 403), (scope, path)
            assert client.get("/v1/models", headers=headers).status_code == 200
    keys_list.run(keys_list.Settings(keys=store.path))
    assert "no limits; metrics only" in capsys.readouterr().out


def test_keys_of_before_there_were_scopes(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    text = KeyStore(path).create("old")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE keys DROP COLUMN scopes")
    found = KeyStore(path).find(text)
    assert found is not None
    assert found.scopes == SCOPES


def test_the_log_tells_no_text(guarded: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded.service.keys is not None
    headers = {"x-api-key": guarded.service.keys.create("alice"), "x-request-id": "mine"}
    secret, said = "the cat sat secretly", ""
    body = {"model": "plain", "prompt": secret, "max_tokens": 3, "ignore_eos": True}
    asked = [("/v1/completions", change) for change in ({}, {"stream": True}, {"model": "other"})] + [("/secretly", {})]
    with httpx.Client(base_url=guarded.url) as client:
        for number, (path, change) in enumerate(asked):
            assert client.post(path, json=body | change, headers=headers).headers["x-request-id"] == "mine"
            while said.count("\n") <= number:  # its line is written when all has been sent
                time.sleep(0.01)
                said += capsys.readouterr().err
    lines = [json.loads(line) for line in said.splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 404, 404]
    for line in lines[:2]:
        expected = {"request_id": "mine", "key": "alice", "model": "plain", "route": "/v1/completions"}
        assert line.items() >= {**expected, "completion_tokens": 3}.items()
        assert line["endings"] == {"length": 1}
    assert "secret" not in said


def test_ready_by_health(guarded: Running) -> None:
    with httpx.Client(base_url=guarded.url) as client:
        assert client.get("/health?ready=true").json() == {"status": "ok", "ready": True}
        guarded.service.draining = True
        assert client.get("/health").status_code == 200
        assert client.get("/health?ready=true").status_code == 503


def test_the_dashboard_asks_for_what_there_is(guarded: Running) -> None:
    assert guarded.service.keys is not None
    headers = {"x-api-key": guarded.service.keys.create("prometheus", scopes=["metrics"])}
    with httpx.Client(base_url=guarded.url) as client:
        client.get("/health")
        told = set(re.findall(r"^(inkling_\w+)", client.get("/metrics", headers=headers).text, re.MULTILINE))
    asked = set(re.findall(r"inkling_\w+", DASHBOARD.read_text(encoding="utf-8")))
    assert len(asked) > 8
    assert asked <= told


# ---------------------------------------------------------------- batches from a file


def batch_of(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def request_line(number: int, **body: Any) -> dict[str, Any]:
    whole = {"prompt": "the cat", "max_tokens": 4, "seed": number, **body}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/completions", "body": whole}


def test_a_batch_goes_on_where_it_stopped(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs(tmp_path, small_tokenizer)[0]
    requests = tmp_path / "in.jsonl"
    requests.write_text(batch_of(*(request_line(n) for n in range(5)), request_line(5, temperature=9)))
    given = generate.Settings(run=run, batch=requests, as_json=True)
    generate.run(given)
    output = tmp_path / "in.answers.jsonl"
    assert json.loads(capsys.readouterr().out) == {"output": str(output), "answered": 6, "failed": 1}
    whole = {line["custom_id"]: line for line in map(json.loads, output.read_text().splitlines())}
    assert {line["response"]["status_code"] for line in whole.values()} == {200, 400}
    assert whole["r5"]["error"]["param"] == "temperature"
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:3]) + lines[3][:40])  # it was killed while it wrote the fourth
    generate.run(given)
    again = {line["custom_id"]: line for line in map(json.loads, output.read_text().splitlines())}
    assert len(output.read_text().splitlines()) == 6
    for name, line in whole.items():
        texts = [one["response"]["body"].get("choices") for one in (line, again[name])]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "in.jsonl:1: no JSON"),
        ("[1]\n", "no custom_id"),
        (batch_of(request_line(1), request_line(1)), "in.jsonl:2: the custom_id 'r1' stands there twice"),
        (batch_of({**request_line(1), "url": "/v1/files"}), "url is one of"),
        (batch_of(request_line(1, stream=True)), "without stream"),
        ("\n", "no requests"),
    ],
)
def test_a_bad_batch_is_refused_before_anything_is_loaded(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(DataError, match=reason):
        generate.run(generate.Settings(run=tmp_path / "nothing", batch=tmp_path / "in.jsonl"))


def test_answers_are_not_written_into_another_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(batch_of(request_line(1)))
    (tmp_path / "notes").write_text("my notes\n")
    with pytest.raises(DataError, match="no answer of a batch"):
        generate.run(generate.Settings(run=tmp_path, batch=tmp_path / "in.jsonl", output=tmp_path / "notes"))
    assert (tmp_path / "notes").read_text() == "my notes\n"


def test_help_needs_no_server_packages() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['fastapi'] = None; import inkling.commands.generate"],
        capture_output=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
