"""API keys and what each may use, in one SQLite file. Keys are kept as hashes: a key is shown once, when it is made."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from inkling.errors import ConfigError

_PREFIX = "ink-"
_SCHEMA = """CREATE TABLE IF NOT EXISTS keys (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, created_s REAL NOT NULL,
    requests_per_minute INTEGER, tokens_per_minute INTEGER, concurrency INTEGER, revoked_s REAL)"""
_COLUMNS = "id, name, created_s, requests_per_minute, tokens_per_minute, concurrency, revoked_s, scopes"
Scope = Literal["generate", "embed", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Key:
    """A key's record.

    Attributes:
        requests_per_minute: None: as many as come; the same for the two after it.
        concurrency: Requests at once.
        scopes: What it opens.
    """

    id: int
    name: str
    created_s: float
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    revoked_s: float | None
    scopes: tuple[Scope, ...] = SCOPES

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Key:
        """As it lies in the file, with its scopes as one text."""
        values = dict(zip(_COLUMNS.split(", "), row, strict=True))
        scopes = values["scopes"]
        return cls(**{**values, "scopes": SCOPES if scopes is None else tuple(scopes.split(","))})


class KeyStore:
    """The keys in a file, which is made when the first key is.

    Raises ConfigError when the file is no such database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            self.list()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path)
        connection.execute(_SCHEMA)
        if "scopes" not in [column[1] for column in connection.execute("PRAGMA table_info(keys)")]:  # of before them
            with contextlib.suppress(sqlite3.OperationalError):  # another process was faster
                connection.execute("ALTER TABLE keys ADD COLUMN scopes TEXT")
        return connection

    def create(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        concurrency: int | None = None,
        scopes: Sequence[Scope] = SCOPES,
    ) -> str:
        """Make a key, and return its text."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = _PREFIX + secrets.token_urlsafe(32)
        values = (name, _hash(text), time.time(), requests_per_minute, tokens_per_minute, concurrency, ",".join(scopes))
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "INSERT INTO keys (name, sha256, created_s, requests_per_minute, tokens_per_minute, concurrency, "
                "scopes) VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
        self.path.chmod(0o600)
        return text

    def list(self) -> list[Key]:
        """All keys, revoked ones too."""
        if not self.path.exists():
            return []
        try:
            with closing(self._connect()) as connection:
                rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY id").fetchall()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path} is no file of keys ({error})") from None
        return [Key.from_row(row) for row in rows]

    def revoke(self, key_id: int) -> None:
        """Let a key be valid no more. Raises ConfigError for one that is not there."""
        if not any(key.id == key_id for key in self.list()):
            raise ConfigError(f"there is no key {key_id} in {self.path}. Run: inkling keys list")
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL", (time.time(), key_id)
            )

    def find(self, text: str) -> Key | None:
        """The valid key with this text. Looked up by its hash, so that the time taken says nothing about the key."""
        if not self.path.exists():
            return None
        with closing(self._connect()) as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM keys WHERE sha256 = ? AND revoked_s IS NULL", (_hash(text),)
            ).fetchone()
        return None if row is None else Key.from_row(row)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class Allowance:
    """What each key has used of its minute, and how many requests it has open. For one event loop."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, str], tuple[float, float]] = {}
        self._open: dict[int, int] = {}

    def wait_s(self, key: Key, now_s: float) -> float:
        """Seconds until a request of this key may come; 0: now."""
        waits = [0.0]
        if key.concurrency is not None and self._open.get(key.id, 0) >= key.concurrency:
            waits.append(1.0)
        for what, limit in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute)):
            if limit is not None:
                used = self._left_over(key, what, limit, now_s)
                least = 1.0 if what == "requests" else 0.0
                if used + least > limit:
                    waits.append((used + least - limit) / limit * 60)
        return max(waits)

    def begin(self, key: Key, now_s: float) -> None:
        """A request begins."""
        self._open[key.id] = self._open.get(key.id, 0) + 1
        self.use(key, "requests", 1, now_s)

    def end(self, key: Key, tokens: int, now_s: float) -> None:
        """It ends, and took so many tokens."""
        self._open[key.id] -= 1
        self.use(key, "tokens", tokens, now_s)

    def use(self, key: Key, what: str, amount: float, now_s: float) -> None:
        """Count; what was used drains away over a minute."""
        limit = key.requests_per_minute if what == "requests" else key.tokens_per_minute
        if limit is not None:
            self._used[key.id, what] = (self._left_over(key, what, limit, now_s) + amount, now_s)

    def left(self, key: Key, what: str, now_s: float) -> int | None:
        """What may still be used at once; None: anything."""
        limit = key.requests_per_minute if what == "requests" else key.tokens_per_minute
        return None if limit is None else max(0, int(limit - self._left_over(key, what, limit, now_s)))

    def _left_over(self, key: Key, what: str, limit: int, now_s: float) -> float:
        used, then_s = self._used.get((key.id, what), (0.0, now_s))
        return max(0.0, used - (now_s - then_s) * limit / 60)
