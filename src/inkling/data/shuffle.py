"""A shuffle that needs no memory: where each index goes is computed, not stored."""

from __future__ import annotations

import numpy as np

from inkling.data.shingles import mix

_ROUNDS = 4


def permute(indices: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where indices below `size` go: int64 of the same shape, all different, chosen by `key`.

    A Feistel network over the next power of four, walked on until it ends below `size` (Black and Rogaway 2002, Ciphers
    with Arbitrary Finite Domains).
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = mix(np.uint64(key) + np.arange(1, _ROUNDS + 1, dtype=np.uint64))
    values = indices.astype(np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        values[outside] = (left << half) | right
        outside = values >= size
    return values.astype(np.int64)
