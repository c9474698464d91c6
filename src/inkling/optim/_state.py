"""Optimizer state as flat named tensors, which is what safetensors can hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def flatten_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, each tensor named `<parameter>/<key>`. Schedules set learning rates: they are no state."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put back what `flatten_state` returned, each tensor on its parameter's device; step counts stay on the CPU."""
    optimizer.state.clear()
    parameters = dict(model.named_parameters())
    for full_name, value in state.items():
        name, _, key = full_name.rpartition("/")
        parameter = parameters[name]
        device = parameter.device if value.shape == parameter.shape else torch.device("cpu")
        optimizer.state[parameter][key] = value.to(device=device, copy=True)
