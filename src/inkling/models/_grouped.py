"""Products of many matrices, each with rows of its own, as operators that torch differentiates and compiles.

torch's own `grouped_mm` (2.13) compiles in bf16 alone; these are loops on a CPU, where they cost what one large product
costs, and that kernel where it is at home.

Shapes: E matrices, N rows in the order of their matrices, C numbers in a row, I of a result; of `sent` and `mixed`: N
tokens of C numbers, k slots of each, S slots in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("inkling::grouped_product", mutates_args=())
def grouped_product(rows: Tensor, matrices: Sequence[Tensor], ends: Tensor, turned: bool) -> Tensor:
    """Each row times the transpose of its matrix: (N, C), E times (I, C) -> (N, I).

    Args:
        ends: Where the rows of each matrix end, (E).
        turned: Times the matrix itself: (N, I), E times (I, C) -> (N, C).
    """
    if rows.is_cuda and rows.dtype == torch.bfloat16:
        stacked = torch.stack(list(matrices))
        return F.grouped_mm(rows, stacked if turned else stacked.mT, offs=ends.to(torch.int32))
    results = rows.new_empty(len(rows), matrices[0].shape[1 if turned else 0])
    for matrix, part in zip(matrices, _parts(ends), strict=True):
        torch.mm(rows[part], matrix if turned else matrix.T, out=results[part])
    return results


@torch.library.custom_op("inkling::grouped_outer", mutates_args=())
def grouped_outer(left: Tensor, right: Tensor, ends: Tensor) -> list[Tensor]:
    """The sum of the outer products of the rows of each matrix: (N, I), (N, C) -> E times (I, C)."""
    return [left[part].T @ right[part] for part in _parts(ends)]


def _parts(ends: Tensor) -> Iterator[slice]:
    start = 0
    for end in ends.tolist():
        yield slice(start, end)
        start = end


@grouped_product.register_fake
def _(rows: Tensor, matrices: Sequence[Tensor], ends: Tensor, turned: bool) -> Tensor:
    return rows.new_empty(len(rows), matrices[0].shape[1 if turned else 0])


@grouped_outer.register_fake
def _(left: Tensor, right: Tensor, ends: Tensor) -> list[Tensor]:
    return [left.new_empty(left.shape[1], right.shape[1]) for _ in range(len(ends))]


def _remember(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor], Tensor, bool], output: Tensor) -> None:
    rows, matrices, ends, turned = inputs
    assert not turned, "only the backward pass multiplies by matrices that are turned"
    ctx.save_for_backward(rows, ends, *matrices)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, list[Tensor], None, None]:
    rows, ends, *matrices = ctx.saved_tensors
    grad = grad.contiguous()
    return grouped_product(grad, matrices, ends, True), grouped_outer(grad, rows, ends), None, None


grouped_product.register_autograd(_backward, setup_context=_remember)


@torch.library.custom_op("inkling::sent", mutates_args=())
def sent(rows: Tensor, slots: Tensor, sources: Tensor) -> Tensor:
    """Copies of each row in its slots: (N, C), slots (N, k), sources (S) -> (S, C).

    Args:
        slots: Where each row went, which the way back asks.
        sources: The row of each slot, any row for a slot that nobody was sent to.
    """
    return rows.index_select(0, sources)


@torch.library.custom_op("inkling::mixed", mutates_args=())
def mixed(copies: Tensor, weights: Tensor, slots: Tensor, sources: Tensor) -> Tensor:
    """Of each row the weighted sum of what is in its slots: (S, C), (N, k) twice, (S) -> (N, C).

    Args:
        sources: As of `sent`, which the way back asks.
    """
    return F.embedding_bag(slots, copies, per_sample_weights=weights, mode="sum")


@sent.register_fake
def _(rows: Tensor, slots: Tensor, sources: Tensor) -> Tensor:
    return rows.new_empty(len(sources), rows.shape[1])


@mixed.register_fake
def _(copies: Tensor, weights: Tensor, slots: Tensor, sources: Tensor) -> Tensor:
    return copies.new_empty(len(weights), copies.shape[1])


def _remember_sent(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward_sent(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (slots,) = ctx.saved_tensors
    return F.embedding_bag(slots, grad.contiguous(), mode="sum"), None, None


def _remember_mixed(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_mixed(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    copies, weights, slots, sources = ctx.saved_tensors
    sent_back = grad.index_select(0, sources)  # (N, C) -> (S, C)
    of_weights = (sent_back * copies).sum(dim=1)[slots]  # (N, k)
    of_slots = weights.new_zeros(len(sources)).scatter_(0, slots.flatten(), weights.flatten())
    return sent_back.mul_(of_slots[:, None]), of_weights, None, None


sent.register_autograd(_backward_sent, setup_context=_remember_sent)
mixed.register_autograd(_backward_mixed, setup_context=_remember_mixed)
