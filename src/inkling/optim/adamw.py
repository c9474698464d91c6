"""AdamW (arXiv:1711.05101), torch's own fused kernel, with weight decay on matrices only."""

from __future__ import annotations

import torch

from inkling.config import Field, Section
from inkling.optim._groups import Group


class Config(Section):
    """AdamW."""

    lr: float = Field(3e-3, gt=0)
    """Peak learning rate. 3e-3 suits models of a few million parameters; large ones want less."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of the gradient."""
    beta2: float = Field(0.99, ge=0, lt=1)
    """Decay of the mean of its square."""
    eps: float = Field(1e-8, gt=0)
    """Keeps the division finite."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of the matrices; embeddings, gains and biases are not decayed."""


def build(groups: list[Group], config: Config) -> torch.optim.Optimizer:
    """The optimizer. Each of its `param_groups` has a `base_lr`, which a schedule multiplies."""
    return torch.optim.AdamW(
        [
            {
                "params": group.parameters,
                "weight_decay": config.weight_decay if group.role == "matrices" else 0.0,
                "base_lr": config.lr,
                "role": group.role,
            }
            for group in groups
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
