"""Packed matrices: what they stand for, and that the fast products give just that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from inkling.quantize import gptq, qat
from inkling.quantize._apply import FORMATS, matrix_class
from inkling.quantize._modules import PackedMatrix, QuantizedTable


def random_matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [(48, 64), (64, 160), (33, 32), (50, 96)], ids=str)
@pytest.mark.parametrize("num_rows", [1, 2, 4, 5, 31, 70])
def test_the_product_is_that_of_the_unpacked_matrix(kind: str, shape: tuple[int, int], num_rows: int) -> None:
    matrix: PackedMatrix = matrix_class(kind).quantize(random_matrix(*shape), 32)
    x = random_matrix(num_rows, shape[1], seed=1)
    wanted = x.bfloat16().double() @ matrix.dequantize(torch.float64).T
    found = matrix.multiply(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-2, atol=3e-3)


@pytest.mark.parametrize("offset", [1, 2, 22])
@pytest.mark.parametrize("kind", FORMATS)
def test_numbers_that_lie_askew_in_memory(kind: str, offset: int) -> None:
    """As those of a file mapped into memory may: torch's kernels then end the process."""
    matrix: PackedMatrix = matrix_class(kind).quantize(random_matrix(64, 128), 32)
    wanted = matrix.multiply(random_matrix(4, 128, seed=1))
    for name, tensor in list(matrix.named_buffers()):
        size = tensor.element_size()
        room = torch.empty(tensor.numel() * size + 128, dtype=torch.uint8)
        start = offset * size
        askew = room[start : start + tensor.numel() * size].view(tensor.dtype).view(tensor.shape)
        matrix._buffers[name] = askew.copy_(tensor)
    assert torch.equal(matrix.multiply(random_matrix(4, 128, seed=1)), wanted)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_matrix_that_lies_turned_has_its_kernel_too(kind: str) -> None:
    """As GPT-2's do: without one, each product would unpack the matrix first."""
    straight = random_matrix(64, 128)
    matrix: PackedMatrix = matrix_class(kind).quantize(straight.T.contiguous().T, 32)
    assert matrix.has_kernel()
    assert torch.equal(
        matrix.dequantize(torch.float32), matrix_class(kind).quantize(straight, 32).dequantize(torch.float32)
    )


def test_int8_is_the_nearest_of_255_multiples() -> None:
    weight = random_matrix(20, 64)
    matrix = matrix_class("int8").quantize(weight, 32)
    scales = matrix.scales.float()[:, None]
    inside = weight.abs() <= 127 * scales
    assert (matrix.dequantize(torch.float32) - weight).abs()[inside].max() <= scales.max() / 2 * 1.01
    assert inside.float().mean() > 0.98
    assert matrix.codes.abs().max() == 127


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_int4_is_what_its_parts_say(group_size: int) -> None:
    matrix = matrix_class("int4").quantize(random_matrix(16, 128), group_size)
    dense = matrix.dequantize(torch.float32)
    for row in (0, 7, 15):
        for column in (0, 1, 63, 127):
            byte = int(matrix.codes[row, column // 2])
            code = byte >> 4 if column % 2 else byte & 15
            scale, zero = matrix.scales_and_zeros[column // group_size, row].float()
            assert dense[row, column] == pytest.approx(float((code - 8) * scale + zero), rel=1e-6)


def test_the_search_for_scales_is_no_worse_than_the_whole_range() -> None:
    weight = random_matrix(32, 128)
    weight[:, ::31] *= 8  # outliers, which a smaller range cuts off
    groups = weight.view(32, -1, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    plain = ((groups - low) / (high - low) * 15).round() / 15 * (high - low) + low
    found = matrix_class("int4").quantize(weight, 32).dequantize(torch.float32)
    assert (found - weight).square().sum() < (plain.flatten(1) - weight).square().sum()


def test_rows_of_a_table() -> None:
    ids = torch.tensor([[3, 0], [39, 3]])
    for kind in FORMATS:
        table = QuantizedTable(matrix_class(kind).quantize(random_matrix(40, 64), 32))
        assert torch.equal(table(ids), table.matrix.dequantize(torch.float32)[ids])


# ---------------------------------------------------------------- GPTQ


def test_gptq_of_inputs_that_have_nothing_in_common_is_rounding() -> None:
    weight = random_matrix(24, 128)
    packed = gptq.pack(weight, torch.eye(128), "int4", 32)
    rounded = matrix_class("int4").quantize(weight, 32)
    assert torch.equal(packed.codes, rounded.codes)
    assert torch.equal(packed.scales_and_zeros, rounded.scales_and_zeros)


@pytest.mark.parametrize("group_size", [32, 128, 256])
def test_gptq_keeps_outputs_better_than_rounding(group_size: int) -> None:
    weight = random_matrix(24, 256)
    mixing = random_matrix(40, 256, seed=2)
    x = random_matrix(500, 40, seed=3) @ mixing + random_matrix(500, 256, seed=4) * 0.02
    packed = gptq.pack(weight, x.T @ x / len(x), "int4", group_size)
    rounded = matrix_class("int4").quantize(weight, group_size)
    errors = [(x @ (m.dequantize(torch.float32) - weight).T).square().mean() for m in (packed, rounded)]
    assert errors[0] < 0.5 * errors[1]


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    x = random_matrix(100, 64)
    x[:, 5:20] = 0
    packed = gptq.pack(random_matrix(16, 64), x.T @ x / 100, "int4", 32)
    assert packed.dequantize(torch.float32).isfinite().all()


# ---------------------------------------------------------------- training with the rounding


@pytest.mark.parametrize("kind", FORMATS)
def test_what_training_rounds_to_is_what_packing_keeps(kind: str) -> None:
    weight = random_matrix(32, 128)
    packed = matrix_class(kind).quantize(weight, 32, search=False)
    torch.testing.assert_close(
        matrix_class(kind).rounded(weight, 32), packed.dequantize(torch.float32), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_gradients_pass_the_rounding(kind: str) -> None:
    layer = torch.nn.Linear(64, 32)
    model = torch.nn.Sequential(layer)
    model.config = type("Config", (), {"vocab_size": 9})()  # type: ignore[assignment]
    x, weights = random_matrix(5, 64), random_matrix(5, 32, seed=2)
    qat.round_weights(model, kind)
    (model(x) * weights).sum().backward()
    torch.testing.assert_close(layer.weight.grad, weights.T @ x)
    rounded = matrix_class(kind).rounded(layer.weight.detach(), 32)
    torch.testing.assert_close(model(x), x @ rounded.T + layer.bias, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
