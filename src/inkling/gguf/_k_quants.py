"""Q4_K, Q5_K and Q6_K: llama.cpp's formats of 256 weights with scales of scales (ggml-quants.c), in numpy.

Bit for bit what llama.cpp's reference quantizer writes without an importance matrix, for builds whose compiler does not
fuse multiplications with additions (the default one). So every sum runs in the same order, in fp32: numpy adds rows one
after the other when it sums over the first axis, which is why groups lie along the last axis here.

Shapes: G groups, n weights of a group (32, or 16 for Q6_K), S super-blocks of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SUPER_BLOCK = 256
_EPSILON = np.float32(1e-15)
_CHUNK = 256
"""Super-blocks worked on at once: few enough for a core's cache, and so many that threads seldom wait for each other's
turn in Python. 64 take twice as long."""

Array = np.ndarray


def quantize(weights: Array, bits: int, num_threads: int = 1) -> Array:
    """Pack rows of weights, (rows, columns) fp32, columns a multiple of 256 -> (rows, bytes) uint8.

    Args:
        bits: 4, 5 or 6, for Q4_K, Q5_K or Q6_K.
    """
    assert weights.shape[-1] % SUPER_BLOCK == 0
    pack: Callable[[Array], Array] = _pack_6 if bits == 6 else lambda blocks: _pack_4_or_5(blocks, bits)
    blocks = np.ascontiguousarray(weights, np.float32).reshape(-1, SUPER_BLOCK)  # (S, 256)
    parts = [blocks[start : start + _CHUNK] for start in range(0, len(blocks), _CHUNK)]
    with np.errstate(divide="ignore", invalid="ignore"):
        if num_threads == 1:
            packed = [pack(part) for part in parts]
        else:
            with ThreadPoolExecutor(num_threads) as pool:
                packed = list(pool.map(lambda part: _quietly(pack, part), parts))
    return np.concatenate(packed).reshape(*weights.shape[:-1], -1)


def _quietly(pack: Callable[[Array], Array], part: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):  # which holds for one thread
        return pack(part)


# ---------------------------------------------------------------- Q4_K and Q5_K: scale and minimum of 32 weights


def _pack_4_or_5(blocks: Array, bits: int) -> Array:
    top = 2**bits - 1
    first_step, num_steps = (-1.0, 20) if bits == 4 else (-0.5, 15)
    x = np.ascontiguousarray(blocks.reshape(-1, 32).T)  # (S, 256) -> (32, G)
    scales, minima = _scales_and_minima(x, top, first_step, num_steps)
    scales, minima = scales.reshape(-1, 8), minima.reshape(-1, 8)  # (G) -> (S, 8)
    scale_of_scales, scale_codes = _six_bits(scales)
    scale_of_minima, minimum_codes = _six_bits(minima)
    # Once more with the scales as they are kept. Where a scale came out as 0 all codes stay those of the search; such
    # weights read as the minimum alone, whatever their codes.
    d = (scale_of_scales.astype(np.float32) * scale_codes).reshape(-1)  # (G)
    m = (scale_of_minima.astype(np.float32) * minimum_codes).reshape(-1)
    codes = np.clip(np.rint((x + m) / d), 0, top)
    if not d.all():
        codes[:, d == 0] = _search_codes(x, top, first_step, num_steps)[:, d == 0]
    codes = codes.astype(np.uint8).T.reshape(-1, 4, 2, 32)  # (32, G) -> (S, 4 · 2, 32)
    low = codes & 15
    fields = [
        scale_of_scales.view(np.uint8),
        scale_of_minima.view(np.uint8),
        _interleave_six_bits(scale_codes.astype(np.uint8), minimum_codes.astype(np.uint8)),
    ]
    if bits == 5:
        places = np.arange(8, dtype=np.uint8).reshape(1, 4, 2, 1)
        fields.append(np.bitwise_or.reduce((codes >> 4) << places, axis=(1, 2)))  # (S, 32)
    fields.append((low[:, :, 0] | (low[:, :, 1] << 4)).reshape(-1, 128))
    return np.concatenate(fields, axis=1)


def _six_bits(values: Array) -> tuple[Array, Array]:
    """Eight values of 0 or more as codes of six bits: their fp16 scale, (S, 1), and the codes, (S, 8) fp32."""
    largest = np.maximum(values.max(axis=1, keepdims=True), 0)
    inverse = np.where(largest > 0, np.float32(63) / largest, np.float32(0))
    # A value below 0 wraps round as in C, where the code is cut to eight bits before it is limited.
    codes = np.minimum(np.rint(inverse * values).astype(np.int32).astype(np.uint8), 63)
    return (largest / np.float32(63)).astype(np.float16), codes.astype(np.float32)


def _interleave_six_bits(scales: Array, minima: Array) -> Array:
    """Sixteen codes of six bits in twelve bytes, (S, 8) twice -> (S, 12)."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = minima[:, :4] | ((minima[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate((first, second, third), axis=1)


def _search(x: Array, top: int, first_step: float, num_steps: int, *, keep_codes: bool) -> tuple[Array, Array, Array]:
    """Scale, minimum and codes of each group that lose least, (n, G) -> (G), (G), (n, G); large weights count more.

    Args:
        keep_codes: False leaves the codes as they were at first, for whoever does not need them.
    """
    mean_square = np.add.reduce(x * x, axis=0) / np.float32(32)
    importance = np.sqrt(mean_square) + np.abs(x)
    sum_w, sum_x = np.add.reduce(importance, axis=0), np.add.reduce(importance * x, axis=0)
    low, high = np.minimum(x.min(axis=0), 0), x.max(axis=0)
    inverse = np.float32(top) / (high - low)
    scale = np.float32(1) / inverse
    codes = np.clip(np.rint(inverse * (x - low)), 0, top)
    difference = scale * codes + low - x
    error = np.add.reduce(importance * (difference * difference), axis=0)
    minimum = low
    tried, weighted, product = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for step in range(num_steps + 1):
        start = np.float32(first_step) + np.float32(0.1) * np.float32(step) + np.float32(top)
        # From the best minimum so far, as llama.cpp does, and not from the smallest weight.
        np.multiply(start / (high - minimum), np.subtract(x, minimum, out=tried), out=tried)
        _round_within(tried, 0, top)
        np.multiply(importance, tried, out=weighted)
        sum_l = np.add.reduce(weighted, axis=0)
        sum_l2 = np.add.reduce(np.multiply(weighted, tried, out=product), axis=0)
        sum_xl = np.add.reduce(np.multiply(weighted, x, out=product), axis=0)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        positive = new_minimum > 0
        new_scale = np.where(positive, sum_xl / sum_l2, new_scale)
        new_minimum = np.where(positive, np.float32(0), new_minimum)
        np.add(np.multiply(new_scale, tried, out=product), new_minimum, out=product)
        np.subtract(product, x, out=product)
        np.multiply(importance, np.multiply(product, product, out=product), out=product)
        new_error = np.add.reduce(product, axis=0)
        better = (determinant > 0) & (new_error < error)
        error, scale = np.where(better, new_error, error), np.where(better, new_scale, scale)
        minimum = np.where(better, new_minimum, minimum)
        if keep_codes:
            np.copyto(codes, tried, where=better)
    flat = high == low
    return np.where(flat, np.float32(0), scale), np.where(flat, -low, -minimum), np.where(flat, np.float32(0), codes)


def _scales_and_minima(x: Array, top: int, first_step: float, num_steps: int) -> tuple[Array, Array]:
    scale, minimum, _ = _search(x, top, first_step, num_steps, keep_codes=False)
    return scale, minimum


def _search_codes(x: Array, top: int, first_step: float, num_steps: int) -> Array:
    return _search(x, top, first_step, num_steps, keep_codes=True)[2]


def _round_within(x: Array, least: int, most: int) -> None:
    """To whole numbers in place."""
    np.rint(x, out=x)
    np.maximum(x, np.float32(least), out=x)
    np.minimum(x, np.float32(most), out=x)


# ---------------------------------------------------------------- Q6_K: a scale of 16 weights


def _pack_6(blocks: Array) -> Array:
    x = np.ascontiguousarray(blocks.reshape(-1, 16).T)  # (S, 256) -> (16, G)
    scales, found_codes = _symmetric_scales(x, 32)
    by_block = scales.reshape(-1, 16)  # (S, 16)
    place = np.abs(by_block).argmax(axis=1)[:, None]
    largest = np.take_along_axis(by_block, place, axis=1)
    inverse = np.float32(-128) / largest
    scale_of_scales = (np.float32(1) / inverse).astype(np.float16)  # (S, 1)
    scale_codes = np.minimum(np.rint(inverse * by_block), 127).astype(np.float32)
    empty = np.abs(largest) < _EPSILON
    scale_of_scales[empty], scale_codes[empty[:, 0]] = 0, 0
    d = (scale_of_scales.astype(np.float32) * scale_codes).reshape(-1)  # (G)
    codes = np.clip(np.rint(x / d), -32, 31) + 32
    if not d.all():
        codes[:, d == 0] = found_codes[:, d == 0]
    codes = codes.astype(np.uint8).T.reshape(-1, 2, 4, 32)  # (16, G) -> (S, 2, 4, 32)
    codes[empty[:, 0]] = 0
    low, high = codes & 15, codes >> 4
    low_bytes = np.concatenate((low[:, :, 0] | (low[:, :, 2] << 4), low[:, :, 1] | (low[:, :, 3] << 4)), axis=2)
    high_bytes = high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)
    return np.concatenate(
        (
            low_bytes.reshape(-1, 128),
            high_bytes.reshape(-1, 64),
            scale_codes.astype(np.int8).view(np.uint8),
            scale_of_scales.view(np.uint8),
        ),
        axis=1,
    )


def _symmetric_scales(x: Array, top: int) -> tuple[Array, Array]:
    """The scale of each group that loses least, squares of weights as importance: (n, G) -> (G), and its codes."""
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    importance = x * x
    scaled = importance * x

    tried, product = np.empty_like(x), np.empty_like(x)

    def attempt(inverse: Array) -> tuple[Array, Array]:
        """Into `tried`: the codes at this scale; their two sums."""
        _round_within(np.multiply(inverse, x, out=tried), -top, top - 1)
        sum_lx = np.add.reduce(np.multiply(scaled, tried, out=product), axis=0)
        np.multiply(np.multiply(importance, tried, out=product), tried, out=product)
        return sum_lx, np.add.reduce(product, axis=0)

    sum_lx, sum_l2 = attempt(np.float32(-top) / largest)
    codes = tried.copy()
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, np.float32(0))
    best = scale * sum_lx
    for step in range(-9, 10):
        if step == 0:
            continue
        sum_lx, sum_l2 = attempt(-(np.float32(top) + np.float32(0.1) * np.float32(step)) / largest)
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
        np.copyto(codes, tried, where=better)
    empty = np.abs(largest) < _EPSILON
    return np.where(empty, np.float32(0), scale), np.where(empty, np.float32(0), codes + top)
