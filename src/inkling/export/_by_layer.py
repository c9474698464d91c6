"""A model that reads the weights of each block when it computes, and lets go of them afterwards."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from inkling import models
from inkling.checkpoint import StoredModel
from inkling.models import LanguageModel


def open_by_layer(stored: StoredModel) -> LanguageModel:
    """The model in fp32 and in evaluation mode: in memory are the tables, and one block while it computes."""
    model = models.without_memory(stored.config)
    stacks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    blocks: dict[str, nn.Module] = {}
    for stack in stacks:
        if not stack.startswith(tuple(f"{name}." for name in blocks)):  # a block may have a stack of its own: experts
            blocks |= {f"{stack}.{number}": block for number, block in model.get_submodule(stack).named_children()}
    for name, block in blocks.items():
        block.register_forward_pre_hook(partial(_load, stored, f"{name}."))
        block.register_forward_hook(_let_go)
    outside = [name for name in stored.shapes if not name.startswith(tuple(f"{block}." for block in blocks))]
    found = {name: tensor.float() for name, tensor in stored.tensors(outside)}
    model.load_state_dict(found, assign=True, strict=False)
    return model.eval()


def _load(stored: StoredModel, prefix: str, block: nn.Module, _: Any) -> None:
    names = [f"{prefix}{name}" for name in block.state_dict()]
    weights = {name.removeprefix(prefix): tensor.float() for name, tensor in stored.tensors(names)}
    block.load_state_dict(weights, assign=True)


def _let_go(block: nn.Module, *_: Any) -> None:
    block.to("meta")
