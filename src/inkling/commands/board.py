"""`inkling board`: the curves of runs, live, on a local page or in the terminal."""

from __future__ import annotations

import json
import math
import time
import webbrowser
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from inkling.commands.runs import list_runs
from inkling.config import CommandSettings, Field, Positional
from inkling.errors import ConfigError

MAX_CHUNK_BYTES = 4 << 20
_LOCAL_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_POLICY = "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_CURVE_WIDTH, _CURVE_HEIGHT = 72, 12
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the eight dots of a braille character: four rows of two."""


class Settings(CommandSettings):
    """Show the curves of all runs in a folder while they are trained: loss, bits per byte, rates, speed, samples.

    The page is for this machine alone: it answers to no other, and it changes nothing.

    Example: inkling board
    Example: inkling board --terminal
    """

    folder: Positional[Path] = Path("runs")
    """Folder that holds run directories."""
    port: int = Field(8321, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""
    browser: bool = True
    """Open the page in a browser."""
    terminal: bool = False
    """Draw the newest run here instead, until Ctrl-C."""
    every: float = Field(2.0, ge=0.1)
    """Seconds between looks."""


def run(settings: Settings) -> None:
    """Serve the page, or draw, until Ctrl-C."""
    list_runs(settings.folder)  # says it when there is no such folder
    if settings.terminal:
        watch(settings)
        return
    try:
        server = ThreadingHTTPServer(("127.0.0.1", settings.port), partial(Handler, settings.folder))
    except OSError as error:
        raise ConfigError(f"port {settings.port} cannot be used: {error.strerror}. Choose another --port") from None
    address = f"http://127.0.0.1:{server.server_port}/"
    print(f"{address}   (Ctrl-C ends it)", flush=True)
    if settings.browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


# ---------------------------------------------------------------- the page


class Handler(BaseHTTPRequestHandler):
    """Answers for one folder of runs: the page, the list of runs, and what was added to a run's files."""

    def __init__(self, folder: Path, *args: Any) -> None:
        self.folder = folder
        super().__init__(*args)

    def do_GET(self) -> None:
        """One request."""
        if self.headers.get("Host", "").rpartition(":")[0] not in _LOCAL_NAMES:  # a page elsewhere that plays local
            self._answer(HTTPStatus.FORBIDDEN, b"this page is for this machine alone", "text/plain")
            return
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/":
            page = resources.files("inkling.commands").joinpath("_board.html").read_bytes()
            self._answer(HTTPStatus.OK, page, "text/html; charset=utf-8")
        elif url.path == "/api/runs":
            self._answer_json(list(describe_runs(self.folder)))
        elif url.path == "/api/more" and (run := self._run_named(query.get("run", ""))) is not None:
            after, samples_after = query.get("after", "0"), query.get("samples", "0")
            if after.isascii() and after.isdigit() and samples_after.isascii() and samples_after.isdigit():
                rows, end = read_from(run / "metrics.jsonl", int(after))
                text, samples_end = read_from(run / "samples.txt", int(samples_after))
                parsed = [json.loads(line) for line in rows.splitlines()]
                self._answer_json({"rows": parsed, "end": end, "samples": text, "samples_end": samples_end})
            else:
                self._answer(HTTPStatus.BAD_REQUEST, b"after and samples are numbers", "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"nothing is here", "text/plain")

    def _run_named(self, name: str) -> Path | None:
        """A run of the folder; names that lead elsewhere are none."""
        return next((path.parent for path in self.folder.glob("*/run.json") if path.parent.name == name), None)

    def _answer_json(self, value: Any) -> None:
        self._answer(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed."""


def describe_runs(folder: Path) -> Iterator[dict[str, Any]]:
    """What the page shows of each run beside its curves."""
    for row in list_runs(folder):
        path = Path(row["run"]) / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            choices = record["choices"]
            planned = choices.get("forecast") or {}
            kept = {"steps_planned": choices["steps"] or planned.get("steps"), "reasons": choices["reasons"]}
            preset = record["settings"].get("preset")
        except (OSError, ValueError, KeyError, TypeError):
            yield {**row, "name": path.parent.name}
            continue
        expected = planned.get("bits_per_byte")
        yield {**row, **kept, "name": path.parent.name, "expected": expected, "reference": reference_curve(preset)}


def reference_curve(preset: str | None) -> Any:
    """The curve that a preset reached when it was measured: rows of progress, mean, deviation over seeds."""
    file = resources.files("inkling.train").joinpath("reference_curves.json")
    if preset is None or not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8")).get(preset)


def read_from(path: Path, start: int) -> tuple[str, int]:
    """Whole lines of a growing file from byte `start` on, and where they end; from the beginning if it has shrunk."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(start if start <= size else 0)
            begin = file.tell()
            data = file.read(MAX_CHUNK_BYTES)
    except OSError:
        return "", 0
    end = data.rfind(b"\n") + 1
    return data[:end].decode("utf-8", errors="replace"), begin + end


# ---------------------------------------------------------------- the terminal


def watch(settings: Settings) -> None:
    """Draw the newest run again and again."""
    console = Console()
    with Live(console=console, refresh_per_second=4, screen=console.is_terminal) as live:
        try:
            while True:
                live.update(picture(settings.folder))
                if not console.is_terminal:  # a file wants it once
                    return
                time.sleep(settings.every)
        except KeyboardInterrupt:
            return


def picture(folder: Path) -> Group:
    """A table of the last runs, and the curves of the newest one."""
    rows = list_runs(folder)
    table = Table(box=None, pad_edge=False)
    for name in ("run", "status", "parameters", "steps", "bits per byte"):
        table.add_column(name, justify="left" if name in ("run", "status") else "right")
    for row in rows[-8:]:
        bits = row.get("bits_per_byte")
        count = [f"{row[key]:,}" if row.get(key) else "-" for key in ("params", "steps")]
        table.add_row(Path(row["run"]).name, row["status"], *count, "-" if bits is None else f"{bits:.4f}")
    if not rows:
        return Group(Text(f"there are no runs in {folder} yet"))
    lines, _ = read_from(Path(rows[-1]["run"]) / "metrics.jsonl", 0)
    metrics = [json.loads(line) for line in lines.splitlines()]
    train = [(row["step"], row["loss_average"]) for row in metrics if row.get("loss_average") is not None]
    validation = [(row["step"], row["val_loss"]) for row in metrics if row.get("val_loss") is not None]
    parts: list[Any] = [table, Text(f"\n{Path(rows[-1]['run']).name}: loss in nats per token")]
    if len(train) > 1:
        parts.append(Text(draw(train, validation)))
        last = metrics[-1]
        parts.append(Text(f"step {last['step']}  " + "  ".join(_said(metrics))))
    return Group(*parts)


def _said(metrics: list[dict[str, Any]]) -> Iterator[str]:
    names = {
        "loss_average": "loss {:.4f}",
        "val_loss": "validation {:.4f}",
        "val_bits_per_byte": "{:.4f} bits per byte",
        "tokens_per_s": "{:,.0f} tokens/s",
        "peak_share": "{:.0%} of the peak",
    }
    for name, form in names.items():
        value = next((row[name] for row in reversed(metrics) if row.get(name) is not None), None)
        if value is not None:
            yield form.format(value)


def draw(line: list[tuple[float, float]], points: list[tuple[float, float]]) -> str:
    """A curve and some points in braille characters, with the largest and smallest value at the left."""
    everything = [value for _, value in line + points if math.isfinite(value)]
    top, bottom = max(everything), min(everything)
    right = max(place for place, _ in line + points) or 1
    columns, rows = 2 * _CURVE_WIDTH, 4 * _CURVE_HEIGHT
    cells = [[0] * _CURVE_WIDTH for _ in range(_CURVE_HEIGHT)]

    def dot(place: float, value: float, size: int) -> None:
        x = round(place / right * (columns - 1))
        y = round((top - value) / ((top - bottom) or 1) * (rows - 1))
        for dx in range(size):
            for dy in range(size):
                if x + dx < columns and y + dy < rows:
                    cells[(y + dy) // 4][(x + dx) // 2] |= _DOTS[(y + dy) % 4][(x + dx) % 2]

    for place, value in line:
        if math.isfinite(value):
            dot(place, value, 1)
    for place, value in points:
        if math.isfinite(value):
            dot(place, value, 2)
    labels = {0: f"{top:.3f}", _CURVE_HEIGHT - 1: f"{bottom:.3f}"}
    drawn = ["".join(chr(_BRAILLE + cell) for cell in row) for row in cells]
    return "\n".join(f"{labels.get(number, ''):>8} {row}" for number, row in enumerate(drawn))
