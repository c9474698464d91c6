"""`inkling keys list`: the keys of the service."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from inkling.commands._keys import DEFAULT_KEYS
from inkling.config import CommandSettings
from inkling.serve.keys import SCOPES, KeyStore


class Settings(CommandSettings):
    """List the API keys of `inkling serve`, by name; the keys themselves are not kept.

    Example: inkling keys list
    """

    keys: Path = DEFAULT_KEYS
    """File of API keys."""
    as_json: bool = False
    """Print one JSON object a line."""


def run(settings: Settings) -> None:
    """Print a line for each."""
    found = KeyStore(settings.keys).list()
    for key in found:
        if settings.as_json:
            print(json.dumps(asdict(key)))
            continue
        made = datetime.fromtimestamp(key.created_s).strftime("%Y-%m-%d %H:%M")
        limits = {
            "requests/min": key.requests_per_minute,
            "tokens/min": key.tokens_per_minute,
            "at once": key.concurrency,
        }
        said = ", ".join(f"{value:,} {what}" for what, value in limits.items() if value is not None) or "no limits"
        said += "" if key.scopes == SCOPES else f"; {', '.join(key.scopes)} only"
        print(f"{key.id:>4}  {key.name:<20}{made}  {said}{'' if key.revoked_s is None else '  revoked'}")
    if not found and not settings.as_json:
        print(f"there are no keys in {settings.keys}. Make one: inkling keys create NAME")
