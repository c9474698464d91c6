"""Parameters by their role: what an optimizer may treat differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Role = Literal["matrices", "embeddings", "head", "vectors"]
_HEADS = {"lm_head", "value_head"}


@dataclass(frozen=True)
class Group:
    """Parameters of one role.

    Attributes:
        role: `matrices` are the 2-D weights of the blocks, `embeddings` the tables of tokens, positions and values (the
            head too where it is tied), `head` an untied output matrix, of tokens or of values, `vectors` gains and
            biases.
    """

    role: Role
    parameters: list[Tensor]


def parameter_groups(model: nn.Module) -> list[Group]:
    """The model's trainable parameters by role, in the order of the model; empty roles are left out."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    roles: dict[Role, list[Tensor]] = {"matrices": [], "embeddings": [], "head": [], "vectors": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        role: Role = "matrices"
        if id(parameter) in tables:
            role = "embeddings"
        elif not _HEADS.isdisjoint(name.split(".")):
            role = "head"
        elif parameter.ndim < 2:
            role = "vectors"
        roles[role].append(parameter)
    return [Group(role, parameters) for role, parameters in roles.items() if parameters]
