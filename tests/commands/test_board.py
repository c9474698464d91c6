"""The board in a real browser and over HTTP: it shows what the files hold, to this machine alone."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from inkling.cli import main
from inkling.commands.board import Handler, draw, read_from

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a few steps, one of them with a name that a page must not take for markup."""
    folder = tmp_path_factory.mktemp("board") / "runs"
    options = ["--size", "0.8m", "--context", "32", "--batch-size", "4", "--steps", "12", "--json"]
    options += ["--model.num_hidden_layers", "1", "--machine.threads", "1", "--machine.precision", "fp32"]
    options += ["--machine.compile", "no", "--machine.micro_batch", "4", "--log.eval_tokens", "256"]
    options += ["--loop.log_every", "1", "--loop.eval_every", "3", "--log.sample_tokens", "8"]
    for name in ("first", "<b>second"):
        assert main(["train", str(data_folder), "--out", str(folder / name), *options]) == 0
    return folder


@pytest.fixture
def port(runs: Path) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, runs))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", f"{host}:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_rows_and_samples_come_whole_and_then_only_what_is_new(port: int, runs: Path) -> None:
    listed = json.loads(get(port, "/api/runs")[1])
    assert [row["name"] for row in listed] == ["first", "<b>second"]
    assert all(row["status"] == "finished" and row["steps_planned"] == 12 for row in listed)
    more = json.loads(get(port, "/api/more?run=first&after=0&samples=0")[1])
    assert more["rows"] == [json.loads(line) for line in (runs / "first/metrics.jsonl").read_text().splitlines()]
    assert more["samples"].count("step") >= 5
    again = json.loads(get(port, f"/api/more?run=first&after={more['end']}&samples={more['samples_end']}")[1])
    assert (again["rows"], again["end"], again["samples"]) == ([], more["end"], "")


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/", "localhost", 200),
        ("/", "evil.example", 403),
        ("/api/runs", "evil.example", 403),
        ("/api/more?run=../first", "127.0.0.1", 404),
        ("/api/more?run=first&after=x", "127.0.0.1", 400),
        ("/api/more?run=first&after=%C2%B2", "127.0.0.1", 400),
        ("/etc/passwd", "127.0.0.1", 404),
    ],
)
def test_who_gets_what(port: int, path: str, host: str, status: int) -> None:
    assert get(port, path, host)[0] == status


def test_half_a_line_waits_and_a_file_that_shrank_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"st')
    assert read_from(file, 0) == ('{"step": 1}\n', 12)
    file.write_text('{"step": 1}\n{"step": 2}\n')
    assert read_from(file, 12) == ('{"step": 2}\n', 24)
    file.write_text('{"step": 1}\n')
    assert read_from(file, 24) == ('{"step": 1}\n', 12)
    assert read_from(tmp_path / "none", 5) == ("", 0)


@pytest.mark.timeout(60)
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_draws_every_curve(port: int, runs: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=6000", "--dump-dom", f"http://127.0.0.1:{port}/"]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    points = {name: int(count) for name, count in re.findall(r'<canvas id="(\w+)"[^>]*data-points="(\d+)"', page)}
    rows = [json.loads(line) for run in runs.iterdir() for line in (run / "metrics.jsonl").read_text().splitlines()]

    def drawn(*names: str) -> int:
        return sum(row.get(name) is not None for row in rows for name in names)

    assert points["loss_average"] == drawn("loss_average", "val_loss")
    for name in ("val_bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_s", "peak_share"):
        assert points[name] == drawn(name) > 0
    assert "&lt;b&gt;second" in page
    assert "what the model writes at step 12" in page


def test_the_terminal_draws_the_newest_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", str(runs), "--terminal"]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "bits per byte" in shown
    assert any("\u2801" <= character <= "\u28ff" for character in shown)


def test_a_falling_line_is_drawn_from_top_left_to_bottom_right() -> None:
    lines = draw([(step, -step) for step in range(200)], []).splitlines()
    columns = [[i for i, c in enumerate(line[9:]) if c != "\u2800"] for line in lines]
    assert columns[0][0] == 0
    assert columns[-1][-1] == 71
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(columns))


def test_no_folder_and_a_port_in_use_are_one_line(port: int, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", str(runs / "none"), "--no-browser"]) != 0
    assert "there is no folder" in capsys.readouterr().err
    assert main(["board", str(runs), "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
