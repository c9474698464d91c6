"""Which matrix of a model gets which format, and putting the packed ones in their places."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inkling.errors import ModelError
from inkling.quantize._modules import PackedMatrix, QuantizedHead, QuantizedLinear, QuantizedTable

METHOD = "inkling"
_VERSION = 1
FORMATS = ("int4", "int8")


@dataclass(frozen=True)
class Quantization:
    """Which matrices of a model are packed, and how: what `config.json` holds as `quantization_config`.

    Attributes:
        formats: Name of the module → int4 or int8.
        group_size: Inputs that share a scale in int4.
    """

    formats: dict[str, str]
    group_size: int = 32

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"quant_method": METHOD, "version": _VERSION, "group_size": self.group_size, "formats": self.formats}

    @classmethod
    def from_dict(cls, values: Any) -> Quantization:
        """Read it. Raises ModelError for another program's, or a damaged one."""
        if not isinstance(values, Mapping) or values.get("quant_method") != METHOD:
            raise ModelError(f"the weights are quantized by another program: {str(values)[:100]}")
        formats, group_size = values.get("formats"), values.get("group_size")
        known = isinstance(formats, dict) and all(kind in FORMATS for kind in formats.values())
        if values.get("version") != _VERSION or not known or not isinstance(group_size, int) or group_size < 2:
            raise ModelError("its quantization_config cannot be understood; is it from a newer Inkling?")
        assert isinstance(formats, dict)
        return cls(formats, group_size)


def matrix_class(name: str) -> Any:
    """The `Matrix` of a format."""
    return importlib.import_module(f"inkling.quantize.{name}").Matrix


def matrices_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Every matrix that can be packed, by its module's name: rows and columns, (N, K).

    Linear layers, and tables with a row for each token; positions stay as they are.
    """
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or getattr(module, "keeps_precision", False):
            continue
        if isinstance(module, nn.Embedding) and module.num_embeddings != _vocab_size(model):
            continue
        rows, columns = weight.shape if not is_turned(module) else reversed(weight.shape)
        found[name] = (int(rows), int(columns))
    return found


def default_formats(model: nn.Module, kind: str, group_size: int) -> dict[str, str]:
    """`kind` for all, but int8 for tables, which are few bytes and many errors, and where `kind` does not fit."""
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    tables |= {name for name, module in model.named_modules() if module is head_of(model)}
    return {
        name: "int8" if name in tables or not matrix_class(kind).fits(shape, group_size) else kind
        for name, shape in matrices_of(model).items()
    }


def head_of(model: nn.Module) -> nn.Module | None:
    """The module that projects to the vocabulary."""
    head = getattr(model, "head", None)
    return head if isinstance(head, nn.Module) else None


def _vocab_size(model: nn.Module) -> int:
    return int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]


def is_turned(module: nn.Module) -> bool:
    """Whether its matrix is stored (in, out), as GPT-2's are."""
    return not isinstance(module, nn.Linear | nn.Embedding)


def weight_of(module: nn.Module) -> Tensor:
    """Its matrix, (N, K)."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if is_turned(module) else weight.detach()


def quantize_model(model: nn.Module, quantization: Quantization, *, search: bool = True) -> None:
    """Round the matrices that `quantization` names to nearest and replace them, in place, one at a time.

    Args:
        search: Look for the scales that lose least, in place of those of the whole range.
    """
    for name, kind in quantization.formats.items():
        module = model.get_submodule(name)
        matrix = matrix_class(kind).quantize(weight_of(module), quantization.group_size, search=search)
        replace(model, name, module, matrix)


def quantized_skeleton(model: nn.Module, quantization: Quantization) -> None:
    """Replace the matrices by packed ones without numbers, for loading. Raises ModelError when names do not fit."""
    shapes = matrices_of(model)
    for name, kind in quantization.formats.items():
        if name not in shapes:
            raise ModelError(f"its quantization_config names {name!r}, which is no matrix of the model")
        if not matrix_class(kind).fits(shapes[name], quantization.group_size):
            raise ModelError(f"{name} of shape {shapes[name]} cannot be {kind} in groups of {quantization.group_size}")
        with torch.device("meta"):
            empty = matrix_class(kind).empty(shapes[name], quantization.group_size)
        replace(model, name, model.get_submodule(name), empty)


def replace(model: nn.Module, name: str, module: nn.Module, matrix: PackedMatrix) -> None:
    """Put a packed matrix in the place of a module."""
    bias = getattr(module, "bias", None)
    new: nn.Module
    if isinstance(module, nn.Embedding):
        new = QuantizedTable(matrix)
    else:
        kind = QuantizedHead if module is head_of(model) else QuantizedLinear
        new = kind(matrix, bias.detach() if isinstance(bias, Tensor) else None)
    model.set_submodule(name, new)


def keep_packed(model: nn.Module) -> None:
    """Multiply with packed kernels however many rows there are: a row's bits then do not depend on their number."""
    for module in model.modules():
        if isinstance(module, PackedMatrix):
            module.max_packed_rows = sys.maxsize


def unpacks(model: nn.Module) -> bool:
    """Whether a packed matrix has no kernel where it is, so that it is unpacked for its products, to `wide_dtype`."""
    return any(isinstance(module, PackedMatrix) and not module.has_kernel() for module in model.modules())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all numbers of a model, packed or not, each stored once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
