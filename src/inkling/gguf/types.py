"""The number formats of GGUF tensors, and which tensor gets which: llama.cpp's own rules (llama-quant.cpp)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inkling.errors import ExportError, MissingExtraError
from inkling.gguf import _k_quants

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For rows whose length is no multiple of 256."""
_MORE_BITS = {"q4_k_m", "q5_k_m"}
_MAX_F16 = 65_504.0


@dataclass(frozen=True)
class FileType:
    """A kind of file, named after what most of its tensors hold.

    Attributes:
        tensor_type: GGUF's name of that format.
        number: `general.file_type`.
    """

    tensor_type: str
    number: int


FILE_TYPES = {
    "f32": FileType("F32", 0),
    "f16": FileType("F16", 1),
    "bf16": FileType("BF16", 32),
    "q8_0": FileType("Q8_0", 7),
    "q4_0": FileType("Q4_0", 2),
    "q4_1": FileType("Q4_1", 3),
    "q5_0": FileType("Q5_0", 8),
    "q5_1": FileType("Q5_1", 9),
    "q4_k_m": FileType("Q4_K", 15),
    "q5_k_m": FileType("Q5_K", 17),
    "q6_k": FileType("Q6_K", 18),
}
FLOAT_TYPES = ("F32", "F16", "BF16")


def ggml_type(name: str) -> GGMLQuantizationType:
    """The package's number for a format. Raises MissingExtraError without the `gguf` package."""
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "a GGUF file") from None
    return gguf.GGMLQuantizationType[name]


def tensor_types(shapes: Mapping[str, tuple[int, ...]], file_type: str, num_layers: int) -> dict[str, str]:
    """The format of each tensor of a file, by GGUF's names.

    Norms, biases, positions and routers stay fp32. In a quantized file the output matrix, or the embedding that is also
    the output, gets Q6_K; `q4_k_m` and `q5_k_m` give Q6_K to half of the value and down projections too. Beside eight
    experts attention is small, and its keys and values get Q8_0, as llama.cpp does it.

    Args:
        shapes: Of all tensors, (rows, columns).
    """
    model = _Model(
        num_layers,
        is_tied="output.weight" not in shapes,
        has_eight_experts=any("ffn_gate_inp." in name and shape[0] == 8 for name, shape in shapes.items()),
    )
    return {name: _type_of(name, shape, file_type, model) for name, shape in shapes.items()}


@dataclass(frozen=True)
class _Model:
    """What the choice of a tensor's format depends on beside its name and shape."""

    num_layers: int
    is_tied: bool
    has_eight_experts: bool

    def wants_more_bits(self, layer: int) -> bool:
        """Half of the layers: the first eighth, the last, and each third between."""
        eighth = self.num_layers // 8
        return layer < eighth or layer >= 7 * self.num_layers // 8 or (layer - eighth) % 3 == 2


def _type_of(name: str, shape: tuple[int, ...], file_type: str, model: _Model) -> str:
    wanted = FILE_TYPES[file_type].tensor_type
    kept = "norm" in name or "ffn_gate_inp" in name or name == "position_embd.weight"
    if len(shape) < 2 or kept or not name.endswith("weight"):
        return "F32"
    if wanted in FLOAT_TYPES:
        return wanted
    chosen = wanted
    columns = shape[-1]
    if name == "output.weight" or (name == "token_embd.weight" and model.is_tied):
        if columns % _block_length(wanted):
            chosen = "Q8_0"
        elif wanted != "Q8_0":
            chosen = "Q6_K"
    elif model.has_eight_experts and any(part in name for part in ("attn_k.", "attn_v.")):
        chosen = "Q8_0"
    elif model.has_eight_experts and "attn_output." in name and file_type == "q4_k_m":
        chosen = "Q5_K"
    elif file_type in _MORE_BITS and any(part in name for part in ("attn_v.", "attn_qkv.", "ffn_down")):
        chosen = "Q6_K" if model.wants_more_bits(int(name.split(".")[1])) else wanted
    if columns % _block_length(chosen):
        chosen = _FALLBACK.get(chosen, chosen)
    return "F16" if columns % _block_length(chosen) else chosen


def num_bytes(type_name: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in a format."""
    length, size = _block(type_name)
    return int(np.prod(shape, dtype=object)) // length * size


def _block_length(type_name: str) -> int:
    return _block(type_name)[0]


def _block(type_name: str) -> tuple[int, int]:
    """Weights of a block, and its bytes."""
    number = ggml_type(type_name)
    import gguf

    length, size = gguf.GGML_QUANT_SIZES[number]
    return int(length), int(size)


def encode(weights: np.ndarray, type_name: str) -> np.ndarray:
    """Pack fp32 weights, (rows, columns) or (columns), in a format.

    Raises ExportError for a number that the format cannot hold.
    """
    number = ggml_type(type_name)
    if type_name == "F32":
        return weights
    if not np.isfinite(weights).all():
        raise ExportError(
            "the weights hold numbers that are not finite, which no quantized file can; nothing is written"
        )
    if type_name == "F16" and np.abs(weights).max(initial=0) > _MAX_F16:
        raise ExportError(f"a weight is beyond fp16's range of {_MAX_F16:,.0f}. Use --type bf16")
    if type_name in ("Q4_K", "Q5_K", "Q6_K"):
        return _k_quants.quantize(weights, int(type_name[1]), num_threads=min(4, os.cpu_count() or 1))
    import gguf

    packed: np.ndarray = gguf.quantize(np.ascontiguousarray(weights), number)
    return packed


def decode(packed: np.ndarray, type_name: str) -> np.ndarray:
    """Unpack to fp32; `packed` holds bytes, or fp32 or fp16 numbers as they are."""
    number = ggml_type(type_name)
    import gguf

    weights: np.ndarray = gguf.dequantize(packed, number)
    return weights
