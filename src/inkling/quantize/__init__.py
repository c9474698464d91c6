"""Weights in 8 or 4 bits, `model -> model`. A public file in this folder that defines `Matrix` is one number format.

_modules: what stands in a model in the place of its matrices · _apply: which matrix gets which format, and putting them
there · gptq: codes chosen so that outputs and not weights are kept · budget: the best mix for a size · qat: training
with the rounding.
"""

from inkling.quantize._apply import (
    Quantization,
    default_formats,
    keep_packed,
    quantize_model,
    quantized_skeleton,
    unpacks,
    weight_bytes,
)

__all__ = [
    "Quantization",
    "default_formats",
    "keep_packed",
    "quantize_model",
    "quantized_skeleton",
    "unpacks",
    "weight_bytes",
]
