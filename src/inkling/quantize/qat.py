"""Quantization-aware training: the model computes with rounded weights and learns with whole ones.

The gradient passes the rounding as if it were not there (the straight-through estimator, Bengio et al. 2013, arXiv
1308.3432), so weights move to where rounding costs little.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.quantize._apply import default_formats, is_turned
from inkling.quantize.int4 import Matrix as Int4Matrix
from inkling.quantize.int8 import Matrix as Int8Matrix

GROUP_SIZE = 32


def round_weights(model: nn.Module, kind: str) -> None:
    """Let every matrix that `inkling quantize` would bring to `kind` be rounded so in each forward pass, in place.

    Names and values of parameters stay as they are. Tables, which take 8 bits and lose next to nothing, stay whole.
    """
    for name, module_kind in default_formats(model, kind, GROUP_SIZE).items():
        module = model.get_submodule(name)
        if module_kind == kind and not isinstance(module, nn.Embedding) and name != "lm_head":
            module.forward = partial(_forward, module, kind)


def _forward(module: nn.Module, kind: str, x: Tensor) -> Tensor:
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    matrix = weight.T if is_turned(module) else weight
    return F.linear(x, _round(matrix, kind), bias)


def _round(weight: Tensor, kind: str) -> Tensor:
    """The weights after packing, with the gradient of those before."""
    with torch.no_grad():
        packed = Int8Matrix if kind == "int8" else Int4Matrix
        difference = packed.rounded(weight, GROUP_SIZE) - weight
    return weight + difference
