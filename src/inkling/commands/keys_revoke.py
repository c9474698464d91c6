"""`inkling keys revoke`: a key that is valid no more."""

from __future__ import annotations

from pathlib import Path

from inkling.commands._keys import DEFAULT_KEYS
from inkling.config import CommandSettings, Positional
from inkling.serve.keys import KeyStore


class Settings(CommandSettings):
    """Let an API key be valid no more, at once.

    Example: inkling keys revoke 3
    """

    number: Positional[int]
    """As `inkling keys list` numbers it."""
    keys: Path = DEFAULT_KEYS
    """File of API keys."""


def run(settings: Settings) -> None:
    """Revoke."""
    KeyStore(settings.keys).revoke(settings.number)
    print(f"key {settings.number} is revoked")
