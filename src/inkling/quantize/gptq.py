"""GPTQ (Frantar et al. 2023, arXiv 2210.17323): 4-bit codes chosen so that a layer's outputs change least.

Each column's rounding error is made up for by the columns after it, in proportion to how inputs go together in
calibration text. Blocks are taken in order, each seeing what the blocks before it give once they are quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inkling.quantize._apply import Quantization, replace, weight_of
from inkling.quantize._modules import PackedMatrix
from inkling.quantize.int4 import Matrix as Int4Matrix
from inkling.quantize.int4 import choose_scales, round_to_codes
from inkling.quantize.int8 import Matrix as Int8Matrix

_DAMPING = 0.01
_BLOCK = 128


class _StopForwardError(Exception):
    """The first block's inputs are known: nothing after them is needed."""


@torch.no_grad()
def quantize_blocks(
    model: nn.Module,
    batches: Sequence[Tensor],
    quantization: Quantization,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Quantize what `quantization` names inside the model's blocks, in place; the rest is left to `quantize_model`.

    Args:
        batches: Token ids of calibration text, (B, T) each.
    """
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    prefix = next(name for name, module in model.named_modules() if module is blocks)
    inputs = [_inputs_of_first_block(model, blocks[0], ids) for ids in batches]
    for number, block in enumerate(blocks):
        on_progress(number, len(blocks))
        names = [name for name in quantization.formats if name.startswith(f"{prefix}.{number}.")]
        modules = {name: model.get_submodule(name) for name in names}
        with _second_moments(modules) as moments:
            for x, rest in inputs:
                block(x, *rest)
        for name, module in modules.items():
            kind = quantization.formats[name]
            replace(model, name, module, pack(weight_of(module), moments[name], kind, quantization.group_size))
        inputs = [(block(x, *rest), rest) for x, rest in inputs]
    on_progress(len(blocks), len(blocks))


def _inputs_of_first_block(model: nn.Module, first: nn.Module, ids: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
    caught: list[tuple[Any, ...]] = []

    def catch(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        caught.append(arguments)
        raise _StopForwardError

    handle = first.register_forward_pre_hook(catch)
    try:
        model.hidden(ids)  # type: ignore[operator]
    except _StopForwardError:
        pass
    finally:
        handle.remove()
    x, *rest = caught[0]
    return x, tuple(rest)


@contextmanager
def _second_moments(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect each module's mean of x·xᵀ over its inputs, (K, K); modules with the same input share one."""
    moments: dict[str, Tensor] = {}
    seen: dict[str, int] = {}
    shared: dict[int, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def collect(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0]
            if id(x) not in shared:
                shared.clear()
                flat = x.reshape(-1, x.shape[-1]).float()
                shared[id(x)] = (x, flat.T @ flat / len(flat))  # x is kept, so that its id stays its own
            count = seen.get(name, 0)
            moment = shared[id(x)][1]
            moments[name] = moment if not count else moments[name] + (moment - moments[name]) / (count + 1)
            seen[name] = count + 1

        return collect

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def pack(weight: Tensor, moment: Tensor, kind: str, group_size: int) -> PackedMatrix:
    """The packed form of a matrix, (N, K), for inputs with this second moment, (K, K)."""
    importance = moment.diagonal().clamp(min=1e-12)
    if kind == "int8":
        return Int8Matrix.quantize(weight, group_size, importance)
    return _gptq(weight.float().clone(), moment, group_size)


def _gptq(weight: Tensor, moment: Tensor, group_size: int) -> Int4Matrix:
    columns = weight.shape[1]
    upper = _inverse_root(moment)
    codes = torch.empty_like(weight)
    scales = torch.empty(len(weight), columns // group_size, dtype=torch.bfloat16)
    zeros = torch.empty_like(scales)
    block = max(_BLOCK, group_size)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        part = weight[:, start:end]  # a view: what is made up for is written into the weights
        errors = torch.empty_like(part)
        for column in range(end - start):
            place = start + column
            if place % group_size == 0:
                group = place // group_size
                importance = 1 / upper.diagonal()[place : place + group_size].square()
                chosen = choose_scales(part[:, None, column : column + group_size], importance[None])
                scales[:, group], zeros[:, group] = chosen[0][:, 0], chosen[1][:, 0]
            scale, zero = scales[:, group], zeros[:, group]
            code = round_to_codes(part[:, None, column : column + 1], scale[:, None], zero[:, None])[:, 0, 0]
            codes[:, place] = code
            value = (code - 8) * scale.float() + zero.float()
            error = (part[:, column] - value) / upper[place, place]
            errors[:, column] = error
            part[:, column + 1 :] -= error[:, None] * upper[place, place + 1 : end]
        weight[:, end:] -= errors @ upper[start:end, end:]
    return Int4Matrix.from_codes(codes, scales, zeros)


def _inverse_root(moment: Tensor) -> Tensor:
    """The upper triangular U with UᵀU = moment⁻¹, in fp32, the moment damped until it can be inverted."""
    moment = moment.double()
    diagonal = moment.diagonal()
    diagonal[diagonal == 0] = diagonal.mean().clamp(min=1e-12)  # inputs that are always 0
    damping = _DAMPING
    while True:
        damped = moment + damping * diagonal.mean() * torch.eye(len(moment), dtype=moment.dtype)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            break
        damping *= 10
    inverse = torch.cholesky_inverse(factor)
    root: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return root
