"""Adapters made part of the weights: for a run that any tool opens, and for the time of a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inkling.peft.lora import DEFAULT, Adapters, disabled, matrix_of
from inkling.quantize._apply import is_turned
from inkling.quantize._modules import QuantizedLinear, QuantizedTable


@torch.no_grad()
def merged_weights(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """The weights of the base's architecture with an adapter in them, by the base's own names; no adapter by itself.

    Added in fp32 and stored in the base's own precision. Packed matrices are unpacked: an adapter changes them by less
    than their steps.
    """
    found: dict[str, Tensor] = {}
    packed = {
        module_name: module
        for module_name, module in model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedTable)
    }
    for full, tensor in model.state_dict().items():
        owner = full.partition(".matrix.")[0]
        if ".adapters." not in full and not (owner != full and owner in packed):
            found[full] = tensor
    for module_name, module in packed.items():
        found[f"{module_name}.weight"] = module.matrix.dequantize(torch.float32)
    for module_name, module in model.named_modules():
        adapters = getattr(module, "adapters", None)
        if isinstance(adapters, Adapters) and name in adapters:
            weight = matrix_of(module)
            whole = adapters.of(name).whole(weight).to(weight.dtype)
            found[f"{module_name}.weight"] = whole.T.contiguous() if _stored_turned(module) else whole
    return found


@contextmanager
def merged(model: nn.Module, name: str = DEFAULT) -> Iterator[None]:
    """The adapter in the weights for the time of the block, so that everything that reads them sees it.

    The weights come back bit for bit. Not for packed matrices.
    """
    changed: list[tuple[Tensor, Tensor]] = []
    with disabled(model), torch.no_grad():
        try:
            for module in model.modules():
                adapters = getattr(module, "adapters", None)
                if isinstance(adapters, Adapters) and name in adapters:
                    weight = matrix_of(module)
                    changed.append((weight, weight.clone()))
                    weight.copy_(adapters.of(name).whole(weight))
            yield
        finally:
            for weight, before in changed:
                weight.copy_(before)


def _stored_turned(module: nn.Module) -> bool:
    """Whether the base's architecture stores its matrix (in, out)."""
    return not isinstance(module, QuantizedLinear) and is_turned(module)
