"""Packed weights: what other programs unpack from them, and, for K-quants, llama.cpp's own bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import gguf
from inkling.errors import ExportError
from inkling.gguf import types

# SHA-256 of what llama.cpp's quantize_row_q*_K_ref writes for `vector()` (ggml-quants.c of its revision 0c1e57098,
# compiled by gcc with -O3 for x86-64).
LLAMA_CPP = {
    "Q4_K": "15f0b1bfda0a25801fe4de40f9c328efe5a09ca70abbd4f496fda93089580e7d",
    "Q5_K": "430a459d828eff07616c928a7c854644b928960ac19d755b56d483d6b0e7597b",
    "Q6_K": "1c590262b07c8e293d7893e73c9b03c08da40218e2c8c5828d0e2397205f3738",
}


def vector() -> np.ndarray:
    """Sixteen super-blocks of exact fp32 numbers: even and heavy-tailed, of one sign, sparse, constant, and zero."""
    k = np.arange(16 * 256, dtype=np.int64)
    even = ((k * k * 7919 + 13 * k) % 2003 - 1001).astype(np.float32) / np.float32(1024)
    x = even.reshape(16, 256)
    x[4:6] = x[4:6] ** 3
    x[6] = np.abs(x[6])
    x[7] = -np.abs(x[7])
    x[8][np.arange(256) % 37 != 0] = 0
    x[9] = 0.25
    x[10] = 0
    x[11] *= np.repeat(np.float32(2.0) ** np.arange(-8, 8, dtype=np.float32), 16)
    x[12] *= np.float32(2.0**-60)
    return x


@pytest.mark.parametrize("name", LLAMA_CPP)
@pytest.mark.parametrize("rows", [16, 4])
def test_k_quants_are_llama_cpps_bytes(name: str, rows: int) -> None:
    packed = types.encode(vector().reshape(rows, -1), name)
    assert packed.shape == (rows, 4096 // rows // 256 * gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1])
    assert hashlib.sha256(packed.tobytes()).hexdigest() == LLAMA_CPP[name]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("Q4_0", 0.1), ("Q4_1", 0.08), ("Q5_0", 0.05), ("Q5_1", 0.04), ("Q8_0", 0.006)]
    + [("Q4_K", 0.08), ("Q5_K", 0.04), ("Q6_K", 0.02), ("BF16", 0.002), ("F16", 0.0003)],
)
def test_the_packages_unpacking_gives_the_weights_back(name: str, limit: float) -> None:
    weights = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    packed = types.encode(weights, name)
    assert packed.nbytes == types.num_bytes(name, weights.shape)
    unpacked = gguf.dequantize(packed, gguf.GGMLQuantizationType[name])
    assert np.sqrt(((unpacked - weights) ** 2).mean()) < limit


def test_numbers_that_a_format_cannot_hold_are_refused() -> None:
    with pytest.raises(ExportError, match="fp16's range"):
        types.encode(np.array([[70_000.0]], np.float32), "F16")
    with pytest.raises(ExportError, match="not finite"):
        types.encode(np.full((1, 256), np.nan, np.float32), "Q4_K")


def test_which_tensor_gets_which_format() -> None:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (99, 256), "output.weight": (99, 256)}
    for layer in range(8):
        shapes |= {
            f"blk.{layer}.{name}.weight": (256, 256) for name in ("attn_v", "attn_k", "ffn_down", "ffn_gate_inp")
        }
        shapes |= {f"blk.{layer}.attn_norm.weight": (256,), f"blk.{layer}.odd.weight": (256, 96)}
    found = types.tensor_types(shapes, "q4_k_m", 8)
    assert found["output.weight"] == "Q6_K"
    assert found["token_embd.weight"] == "Q4_K"
    assert [found[f"blk.{layer}.attn_v.weight"] == "Q6_K" for layer in range(8)] == [1, 0, 0, 1, 0, 0, 1, 1]
    assert [found[f"blk.{layer}.attn_k.weight"] for layer in (0, 1)] == ["Q4_K", "Q4_K"]
    assert found["blk.0.attn_norm.weight"] == found["blk.0.ffn_gate_inp.weight"] == "F32"
    assert found["blk.0.odd.weight"] == "Q5_0"  # 96 columns are no multiple of 256
    del shapes["output.weight"]
    assert types.tensor_types(shapes, "q4_0", 8)["token_embd.weight"] == "Q6_K"
    assert types.tensor_types({"blk.0.attn_q.weight": (8, 40)}, "q8_0", 1) == {"blk.0.attn_q.weight": "F16"}


def test_beside_eight_experts_attention_gets_more_bits() -> None:
    """As in llama.cpp, which looks for just this number; `bench/export.py` compares whole files with its own."""
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down_exps")
    kinds: dict[int, dict[str, str]] = {}
    for num_experts in (4, 8):
        shapes: dict[str, tuple[int, ...]] = {"blk.1.ffn_gate_inp.weight": (num_experts, 256)}
        shapes |= {f"blk.1.{name}.weight": (256, 256) for name in names}
        found = types.tensor_types(shapes, "q4_k_m", 2)
        kinds[num_experts] = {name: found[f"blk.1.{name}.weight"] for name in names}
    assert list(kinds[4].values()) == ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q6_K"]
    assert list(kinds[8].values()) == ["Q4_K", "Q8_0", "Q8_0", "Q5_K", "Q6_K"]
