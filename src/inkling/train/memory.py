"""The memory that training takes, counted before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from inkling import machine, models
from inkling.optim._groups import parameter_groups

_FP32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs beside the program itself, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def moment_bytes(model: nn.Module, optimizer: str) -> int:
    """What the optimizer keeps: two moments of each trained weight, of muon's matrices one."""
    of_matrices = 1 if optimizer == "muon" else 2
    return _FP32 * sum(
        parameter.numel() * (of_matrices if group.role == "matrices" else 2)
        for group in parameter_groups(model)
        for parameter in group.parameters
    )


def memory_of(
    config: models.ModelConfig, *, tokens: int, optimizer: str, precision: str = "fp32", recompute: bool = False
) -> Memory:
    """Memory to train with `tokens` tokens in a micro-batch; allocates nothing.

    Activations are those that autograd keeps (an upper bound by up to a fifth); bf16 halves most of them.
    """
    model = models.without_memory(config)
    cost = models.cost(model)
    weights = _FP32 * cost.num_parameters
    moments = moment_bytes(model, optimizer)
    logits = min(3 * 32 << 20, 3 * _FP32 * tokens * config.vocab_size)
    activations = max(0, cost.activation_bytes - 2 * _FP32 * config.vocab_size) * tokens
    if precision != "fp32":
        activations = round(0.6 * activations)
    if recompute:
        activations //= max(1, config.num_hidden_layers)
    return Memory(weights, weights, moments, activations, logits)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.memory_bytes()[1]
