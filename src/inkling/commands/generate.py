"""`inkling generate`: continue a prompt, a file of prompts or standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from inkling import checkpoint
from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.errors import ConfigError, DataError
from inkling.infer.generate import Completion, generate
from inkling.infer.sampling import SamplingParams


class Settings(SamplingParams, CommandSettings):
    """Continue a prompt, a file of prompts (one a line) or standard input.

    Example: inkling generate runs/notes --prompt "Once upon a time" --temperature 0.7
    Example: inkling generate runs/notes --prompts questions.txt --json > answers.jsonl
    """

    model_config = SettingsConfigDict(cli_shortcuts={"prompt": "p", "max_tokens": "n"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    prompt: str | None = None
    """What to continue. Default: standard input."""
    prompts: Path | None = None
    """File with one prompt on each line."""
    as_json: bool = False
    """Print one JSON object a line: prompt, completion, stop_reason, num_tokens."""


def run(settings: Settings) -> None:
    """Generate, streaming the text as it comes."""
    prompts = list(_prompts(settings))
    model, tokenizer = checkpoint.load_model(settings.run)
    params = SamplingParams(**settings.model_dump(include=set(SamplingParams.model_fields)))
    for prompt in prompts:
        completion = Completion()
        pieces = generate(model, tokenizer, prompt, params, completion)
        if settings.as_json:
            text = "".join(pieces)
            result = {
                "prompt": prompt,
                "completion": text,
                "stop_reason": completion.stop_reason,
                "num_tokens": len(completion.token_ids),
            }
            print(json.dumps(result, ensure_ascii=False), flush=True)
            continue
        first = next(pieces, "")  # an error about the prompt comes before the prompt is shown
        print(prompt + first, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()


def _prompts(settings: Settings) -> Iterator[str]:
    if settings.prompt is not None and settings.prompts is not None:
        raise ConfigError("give --prompt or --prompts, not both")
    if settings.prompt is not None:
        yield settings.prompt
    elif settings.prompts is not None:
        try:
            yield from settings.prompts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {settings.prompts}: {error}") from None
    elif sys.stdin.isatty():
        raise ConfigError("give a --prompt, a file of --prompts, or text on standard input")
    else:
        yield sys.stdin.read()
