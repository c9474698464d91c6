"""Exact duplicates, by hash."""

from __future__ import annotations


class ExactDuplicates:
    """Remembers hashes of texts; about 100 bytes for each."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, digest: int) -> bool:
        """Remember a hash; True when it is new."""
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True
