"""`inkling tokenizer add`: more tokens for a tokenizer, or for a run with its embedding."""

from __future__ import annotations

import json
from pathlib import Path

from inkling import checkpoint, models
from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.errors import ConfigError
from inkling.tokenizer import Tokenizer


class Settings(CommandSettings):
    """Add tokens to a tokenizer. In a run the rows of the embedding follow: each new row is the mean of the rows of the
    tokens that spelled it before, so the model starts from what it knows.

    Example: inkling tokenizer add runs/notes '<|tool|>' '<|result|>' --special -o runs/notes-tools
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    source: Positional[Path]
    """A run, or a folder or file with a tokenizer."""
    tokens: Positional[list[str]]
    """The new tokens."""
    out: Path
    """New folder."""
    special: bool = False
    """They are control tokens: never made from text, left out of what is shown."""
    pad_to_multiple: int = Field(1, ge=1)
    """Rows of a run's embedding are a multiple of this; 64 is faster on GPUs."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Tokenizer alone, or run."""
    if settings.out.exists() and any(settings.out.iterdir()):
        raise ConfigError(f"{settings.out} is not empty; choose another -o")
    is_run = (settings.source / checkpoint.CONFIG_FILE).is_file()
    if is_run:
        tokenizer, num_rows = _add_to_run(settings)
    else:
        tokenizer, num_rows = Tokenizer.load(settings.source).with_tokens(settings.tokens, special=settings.special), 0
        tokenizer.save(settings.out)
    new = {token: tokenizer.added_tokens[token] for token in settings.tokens}
    if settings.as_json:
        print(json.dumps({"folder": str(settings.out), "tokens": new, "embedding_rows": num_rows}, ensure_ascii=False))
        return
    rows = f", {num_rows:,} rows in the embedding" if num_rows else ""
    print(f"{settings.out}: {tokenizer.vocab_size:,} tokens{rows}")
    for token, number in new.items():
        print(f"  {number:>7}  {token!r}")


def _add_to_run(settings: Settings) -> tuple[Tokenizer, int]:
    model, old = checkpoint.load_model(settings.source)
    tokenizer = old.with_tokens(settings.tokens, special=settings.special)
    multiple = settings.pad_to_multiple
    vocab_size = -(-tokenizer.vocab_size // multiple) * multiple
    grown = models.with_more_tokens(model, old.vocab_size, [old.encode(token) for token in settings.tokens], vocab_size)
    checkpoint.save_model(settings.out, grown, tokenizer)
    if (settings.source / checkpoint.RUN_FILE).is_file():
        record = checkpoint.read_run(settings.source)
        parameters = models.num_parameters(grown.config)
        changed = {"tokenizer_sha256": tokenizer.sha256, "num_parameters": parameters, "results": {}}
        checkpoint.write_run(settings.out, record.model_copy(update=changed))
    return tokenizer, vocab_size
