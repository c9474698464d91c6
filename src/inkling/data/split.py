"""Which documents are for validation. It depends on a document's text alone, so adding data never moves one."""

from __future__ import annotations

import hashlib

import numpy as np

from inkling.data.shingles import mix


def content_hash(text: str) -> bytes:
    """16-byte hash of a text; white space at its ends does not count, so that trivial copies are the same."""
    return hashlib.blake2b(text.strip().encode(), digest_size=16).digest()


def as_digests(hashes: list[bytes]) -> np.ndarray:
    """(n, 2) uint64 from `content_hash`es."""
    return np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)


def is_validation(digests: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(n) bool: which documents are for validation, a `fraction` of all, chosen by `seed`.

    Args:
        digests: (n, 2) uint64.
    """
    drawn = mix(digests[:, 0] ^ mix(digests[:, 1] + np.uint64(seed)))
    chosen: np.ndarray = (drawn >> np.uint64(11)) < fraction * 2.0**53
    return chosen
