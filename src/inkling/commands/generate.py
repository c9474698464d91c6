"""`inkling generate`: continue a prompt, a file of prompts or standard input."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from inkling import checkpoint
from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.chats import DESCRIBE, Question
from inkling.errors import ConfigError, DataError, MissingExtraError, ModelError, reason_of
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine
from inkling.infer.generate import Completion, generate
from inkling.infer.sampling import SamplingParams
from inkling.tokenizer.chat import PICTURE
from inkling.train.encode import Encoder, Eyes


class Settings(SamplingParams, CommandSettings):
    """Continue a prompt, a file of prompts (one a line) or standard input.

    Example: inkling generate runs/notes --prompt "Once upon a time" --temperature 0.7
    Example: inkling generate runs/notes --prompts questions.txt --json > answers.jsonl
    Example: inkling generate runs/notes --batch requests.jsonl
    Example: inkling generate runs/eyes --image cat.png --prompt "What is this?"
    """

    model_config = SettingsConfigDict(cli_shortcuts={"prompt": "p", "max_tokens": "n"})

    run: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    prompt: str | None = None
    """What to continue. Default: standard input."""
    prompts: Path | None = None
    """File with one prompt on each line."""
    image: list[str] = Field([])
    """Pictures to ask about, of a run that sees; --prompt is the question, by default for a description."""
    batch: Path | None = None
    """File of requests in OpenAI's batch form (custom_id, url, body on each line), answered into --output."""
    output: Path | None = None
    """Answers to --batch; run again to go on where it stopped. Default: beside it, as NAME.answers.jsonl."""
    as_json: bool = False
    """Print one JSON object a line: prompt, completion, stop_reason, num_tokens."""


def run(settings: Settings) -> None:
    """Generate, streaming the text as it comes."""
    if settings.batch is not None:
        _answer_batch(settings, settings.batch)
        return
    if settings.output is not None:
        raise ConfigError("--output is for --batch; other text goes to standard output")
    if settings.image:
        _answer_about_pictures(settings)
        return
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


def _answer_about_pictures(settings: Settings) -> None:
    """The answer to a question about pictures, by the chat template."""
    if settings.prompts is not None:
        raise ConfigError("--image is for one --prompt")
    model, tokenizer = checkpoint.load_model(settings.run)
    asked = settings.prompt or DESCRIBE
    message = {
        "role": "user",
        "content": PICTURE * len(settings.image) + "\n" + asked,
        "pictures": settings.image,
    }
    eyes = Eyes.of(model, Path())
    encoder = Encoder(tokenizer, "chat", model.config.max_position_embeddings, eyes=eyes)
    question = Question("--image", "question", [], {}, [message])
    params = SamplingParams(**settings.model_dump(include=set(SamplingParams.model_fields)))
    pictures, ids = encoder.pictures(question, question.prompt), encoder.prompt(question, 1)
    engine = Engine(model, tokenizer)
    answer = Completing(model, tokenizer, ids, params, pictures=pictures)
    engine.add(answer)
    while not engine.is_idle:
        engine.step()
    if answer.failure is not None:
        raise ModelError(answer.failure)
    if settings.as_json:
        told = {"prompt": asked, "completion": answer.text, "stop_reason": answer.finish_reason}
        print(json.dumps({**told, "num_tokens": len(answer.token_ids)}, ensure_ascii=False))
    else:
        print(answer.text)


def _answer_batch(settings: Settings, path: Path) -> None:
    """Answer a file of requests."""
    try:
        from inkling.commands import serve
        from inkling.commands._batch import answer_all, answered, read_requests
    except ImportError:
        raise MissingExtraError("fastapi", "serve", "inkling generate --batch") from None
    if settings.prompt is not None or settings.prompts is not None:
        raise ConfigError("give --batch or a prompt, not both")
    output = settings.output or path.with_suffix(".answers.jsonl")
    requests = read_requests(path)
    done = answered(output)
    open_requests = [one for one in requests if one["custom_id"] not in done]
    if done:
        print(f"{len(requests) - len(open_requests):,} of {len(requests):,} are answered already", file=sys.stderr)
    if not open_requests:
        return
    service = serve.build_service(
        serve.Settings(runs=[settings.run], insecure=True, max_queue=100_000, precision="auto")
    )
    at_once = 2 * serve.Settings.model_fields["max_sequences"].default
    statuses = asyncio.run(answer_all(service, open_requests, output, at_once=at_once, quiet=settings.as_json))
    failed = sum(count for status, count in statuses.items() if status != 200)
    if settings.as_json:
        print(json.dumps({"output": str(output), "answered": sum(statuses.values()), "failed": failed}))
    else:
        print(f"{output}: {sum(statuses.values()):,} answers, {failed:,} of them errors")


def _prompts(settings: Settings) -> Iterator[str]:
    if settings.prompt is not None and settings.prompts is not None:
        raise ConfigError("give --prompt or --prompts, not both")
    if settings.prompt is not None:
        yield settings.prompt
    elif settings.prompts is not None:
        try:
            yield from settings.prompts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {settings.prompts}: {reason_of(error)}") from None
    elif sys.stdin.isatty():
        raise ConfigError("give a --prompt, a file of --prompts, or text on standard input")
    else:
        yield sys.stdin.read()
