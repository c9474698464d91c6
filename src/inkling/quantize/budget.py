"""The best mix of formats for a size: each matrix in 4 bits or in 8, by what 4 bits do to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.quantize._apply import matrices_of, matrix_class, replace, weight_bytes, weight_of


@torch.no_grad()
def damages(
    model: nn.Module,
    batches: Sequence[Tensor],
    names: Sequence[str],
    group_size: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Divergence, nats per token, of the model with one matrix in 4 bits from the model as it is, for each name.

    Args:
        batches: Token ids, (B, T) each.
    """
    before = [model(ids).log_softmax(-1) for ids in batches]
    found = {}
    for number, name in enumerate(names):
        on_progress(number, len(names))
        module = model.get_submodule(name)
        replace(model, name, module, matrix_class("int4").quantize(weight_of(module), group_size))
        after = [model(ids).log_softmax(-1) for ids in batches]
        model.set_submodule(name, module)
        found[name] = _divergence(before, after)
    on_progress(len(names), len(names))
    return found


def _divergence(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    total = sum(F.kl_div(b, a, log_target=True, reduction="sum").item() for a, b in zip(before, after, strict=True))
    return total / sum(a[..., 0].numel() for a in before)


def best_mix(
    model: nn.Module, formats: dict[str, str], damage: dict[str, float], group_size: int, budget_bytes: int
) -> dict[str, str]:
    """`formats` with as many matrices in 8 bits as the budget allows, those first that gain most for their bytes.

    Where not even 4 bits everywhere fit, all stay so.
    """
    shapes = matrices_of(model)
    chosen = {name: "int4" if name in damage else kind for name, kind in formats.items()}
    used = quantized_bytes(model, chosen, group_size)

    def extra(name: str) -> int:
        eight, four = (matrix_class(kind).bytes_of(shapes[name], group_size) for kind in ("int8", "int4"))
        return int(eight - four)

    for name in sorted(damage, key=lambda name: damage[name] / extra(name), reverse=True):
        if used + extra(name) <= budget_bytes:
            chosen[name] = "int8"
            used += extra(name)
    return chosen


def quantized_bytes(model: nn.Module, formats: dict[str, str], group_size: int) -> int:
    """Bytes of all numbers of a model once its matrices are in these formats."""
    shapes = matrices_of(model)
    total = weight_bytes(model)
    for name, kind in formats.items():
        weight = weight_of(model.get_submodule(name))
        total += matrix_class(kind).bytes_of(shapes[name], group_size) - weight.numel() * weight.element_size()
    return total
