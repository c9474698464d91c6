"""Many clients against a bounded queue, some of which leave in mid-stream.

    inkling serve RUN --max-queue 64
    python bench/serve_load.py URL --model NAME --text FILE [--clients 200] [--seconds 120] [--leaving 0.2] [--pid PID]

Each client asks again as soon as its answer has ended, after the time that a refusal asks for. Prints one JSON line:
how requests ended, the service's memory over time (Linux, with `--pid`), and what is left in its engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import httpx


async def client(number: int, arguments: argparse.Namespace, text: str, endings: Counter[str], until_s: float) -> None:
    """One client until time is over."""
    draw = random.Random(number)
    async with httpx.AsyncClient(base_url=arguments.url, timeout=120) as session:
        while time.monotonic() < until_s:
            start = draw.randrange(len(text) - 400)
            body = {
                "model": arguments.model,
                "prompt": text[start : start + draw.randrange(20, 400)],
                "max_tokens": draw.randrange(1, 128),
                "stream": True,
                "ignore_eos": True,
            }
            pieces_until_leaving = draw.randrange(1, 20) if draw.random() < arguments.leaving else None
            try:
                ending, wait_s = await ask(session, body, pieces_until_leaving)
            except httpx.HTTPError as error:
                ending, wait_s = type(error).__name__, 0.1
            endings[ending] += 1
            await asyncio.sleep(wait_s)


async def ask(session: httpx.AsyncClient, body: dict[str, object], leave_after: int | None) -> tuple[str, float]:
    """How a request ended, and when to come again."""
    async with session.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return str(answer.status_code), float(answer.headers.get("retry-after", "1"))
        pieces, last = 0, ""
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                pieces, last = pieces + 1, line
                if pieces == leave_after:
                    return "left", 0.0
    return "200" if last == "data: [DONE]" else "200, and an error in the stream", 0.0


def memory_mb(pid: int | None) -> float | None:
    """Resident memory of a process."""
    if pid is None:
        return None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1000 if found else None


async def drive(arguments: argparse.Namespace) -> dict[str, object]:
    """All of it."""
    text = Path(arguments.text).read_text(encoding="utf-8")
    endings: Counter[str] = Counter()
    until_s = time.monotonic() + arguments.seconds
    memory = [memory_mb(arguments.pid)]

    async def look() -> None:
        while time.monotonic() < until_s:
            await asyncio.sleep(arguments.seconds / 8)
            memory.append(memory_mb(arguments.pid))

    clients = [client(number, arguments, text, endings, until_s) for number in range(arguments.clients)]
    await asyncio.gather(look(), *clients)
    await asyncio.sleep(2)
    async with httpx.AsyncClient(base_url=arguments.url) as session:
        metrics = (await session.get("/metrics")).text
        alive = (await session.get("/health")).status_code
    left = dict(re.findall(r"^inkling_(running|waiting|kv_blocks_used) (\S+)$", metrics, re.MULTILINE))
    return {"endings": dict(endings), "memory_mb": memory, "left": left, "health": alive}


def main() -> None:
    """Reads the options, drives, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--leaving", type=float, default=0.2)
    parser.add_argument("--pid", type=int)
    print(json.dumps(asyncio.run(drive(parser.parse_args()))))


if __name__ == "__main__":
    main()
