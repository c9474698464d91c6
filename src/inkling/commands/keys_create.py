"""`inkling keys create`: a key for the service."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.commands._keys import DEFAULT_KEYS
from inkling.config import CommandSettings, Field, Positional
from inkling.serve.keys import SCOPES, KeyStore, Scope


class Settings(CommandSettings):
    """Make an API key for `inkling serve`. It is shown once; only its hash is kept.

    Example: inkling keys create alice --requests-per-minute 60
    Example: inkling keys create prometheus --scopes metrics
    """

    name: Positional[str]
    """Whose key it is."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Default: as many as come."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Of prompts and completions. Default: as many as come."""
    concurrency: int | None = Field(None, ge=1)
    """Requests at once. Default: as many as come."""
    scopes: list[Scope] = Field(list(SCOPES), min_length=1)
    """What the key opens: generate (all that writes or counts tokens), embed, metrics."""
    keys: Path = DEFAULT_KEYS
    """File of API keys."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Make and show."""
    key = KeyStore(settings.keys).create(
        settings.name,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        concurrency=settings.concurrency,
        scopes=settings.scopes,
    )
    print(json.dumps({"name": settings.name, "key": key}) if settings.as_json else key)
