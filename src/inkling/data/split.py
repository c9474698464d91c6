"""Which documents are for validation. It depends on a document's text alone, so adding data never moves one."""

from __future__ import annotations

import hashlib


def content_hash(text: str) -> int:
    """128-bit hash of a text; white space at its ends does not count, so that trivial copies are the same."""
    return int.from_bytes(hashlib.blake2b(text.strip().encode(), digest_size=16).digest())


def is_validation(digest: int, fraction: float, seed: int) -> bool:
    """Whether the document with this hash is for validation: a `fraction` of all documents, chosen by `seed`."""
    mixed = hashlib.blake2b(digest.to_bytes(16), digest_size=8, salt=seed.to_bytes(16)).digest()
    return int.from_bytes(mixed) < fraction * 2**64
