"""Drives any OpenAI-compatible server: throughput, time to the first token, and what a shared beginning saves.

    python bench/serve.py URL --model NAME --text FILE [--clients 32] [--prompt-characters 500] [--tokens 128]
    python bench/serve.py URL --model NAME --text FILE --shared-characters 4000 --clients 32 --tokens 8

Each client sends one prompt cut from FILE and reads a stream of so many tokens; all begin at once. Tokens are counted
by the server. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import httpx


async def ask(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> dict[str, float]:
    """One request: seconds to the first token and to the end, and tokens."""
    started_s = time.perf_counter()
    first_s, tokens, prompt_tokens = 0.0, 0, 0
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {(await answer.aread()).decode()[:200]}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line[6:])
            if event.get("choices") and event["choices"][0].get("text") and not first_s:
                first_s = time.perf_counter() - started_s
            if event.get("usage"):
                tokens, prompt_tokens = event["usage"]["completion_tokens"], event["usage"]["prompt_tokens"]
    ended_s = time.perf_counter() - started_s
    return {"first_s": first_s or ended_s, "end_s": ended_s, "tokens": tokens, "prompt_tokens": prompt_tokens}


async def drive(arguments: argparse.Namespace) -> dict[str, Any]:
    """All clients at once."""
    text = Path(arguments.text).read_text(encoding="utf-8")
    draw = random.Random(arguments.seed)
    shared = text[: arguments.shared_characters]
    bodies = []
    for number in range(arguments.clients):
        start = draw.randrange(len(text) - arguments.prompt_characters)
        own = text[start : start + arguments.prompt_characters] if not shared else f" {number}"
        bodies.append(
            {
                "model": arguments.model,
                "prompt": shared + own,
                "max_tokens": arguments.tokens,
                "temperature": 1.0,
                "seed": number,
                "stream": True,
                "stream_options": {"include_usage": True},
                "ignore_eos": True,
            }
        )
    for body in bodies:
        for name in arguments.without:
            body.pop(name, None)
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        if shared:
            await ask(client, arguments.url, bodies[0])
        started_s = time.perf_counter()
        found = await asyncio.gather(*(ask(client, arguments.url, body) for body in bodies))
        seconds = time.perf_counter() - started_s
    firsts = sorted(one["first_s"] for one in found)
    return {
        "clients": arguments.clients,
        "prompt_tokens": statistics.mean(one["prompt_tokens"] for one in found),
        "tokens_per_s": sum(one["tokens"] for one in found) / seconds,
        "first_token_s_median": statistics.median(firsts),
        "first_token_s_95": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
        "seconds": seconds,
    }


def main() -> None:
    """Drive, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--prompt-characters", type=int, default=500)
    parser.add_argument("--shared-characters", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], help="fields that this server refuses, such as ignore_eos")
    print(json.dumps(asyncio.run(drive(parser.parse_args()))))


if __name__ == "__main__":
    main()
