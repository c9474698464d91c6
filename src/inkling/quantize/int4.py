"""INT4: a scale and a zero for each group of inputs in a row. Multiplied by torch's `_weight_int4pack_mm_for_cpu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inkling.quantize._modules import PackedMatrix

GROUP_SIZES = (32, 64, 128, 256)
"""Those that torch's kernel knows."""
_TOP = 15
_MIDDLE = 8
_SHRINKS = tuple(1.0 - 0.04 * step for step in range(10))


class Matrix(PackedMatrix):
    """A matrix in 4 bits: weight = (code − 8) × scale + zero of its group.

    Args:
        codes: Two in a byte, the first in its low half, (N, K/2) uint8.
        scales_and_zeros: (K/g, N, 2) bf16, as the kernel takes them.
    """

    max_packed_rows = 48

    def __init__(self, codes: Tensor, scales_and_zeros: Tensor) -> None:
        super().__init__()
        self.shape = (codes.shape[0], 2 * codes.shape[1])
        self.group_size = self.shape[1] // scales_and_zeros.shape[0]
        self.register_buffer("codes", codes)
        self.register_buffer("scales_and_zeros", scales_and_zeros)
        self.codes: Tensor
        self.scales_and_zeros: Tensor
        self._for_kernel: Tensor | None = None

    @classmethod
    def empty(cls, shape: tuple[int, int], group_size: int) -> Matrix:
        """Of this shape, its numbers to be loaded."""
        groups = shape[1] // group_size
        return cls(
            torch.empty(shape[0], shape[1] // 2, dtype=torch.uint8),
            torch.empty(groups, shape[0], 2, dtype=torch.bfloat16),
        )

    @classmethod
    def quantize(
        cls, weight: Tensor, group_size: int, importance: Tensor | None = None, *, search: bool = True
    ) -> Matrix:
        """Round to nearest, scale and zero of each group chosen so that the squared error is least.

        Args:
            weight: (N, K).
            importance: Mean square of each input, (K), which weighs the errors of its column.
            search: False takes the whole range of each group, as a model was trained for that learned with `rounded`.
        """
        groups = weight.float().reshape(len(weight), -1, group_size)  # (N, K) -> (N, K/g, g)
        by_group = None if importance is None else importance.view(-1, group_size)
        scales, zeros = choose_scales(groups, by_group, _SHRINKS if search else _SHRINKS[:1])
        return cls.from_codes(round_to_codes(groups, scales, zeros).flatten(1), scales, zeros)

    @classmethod
    def from_codes(cls, codes: Tensor, scales: Tensor, zeros: Tensor) -> Matrix:
        """From codes of 0 to 15, (N, K), and scales and zeros, (N, K/g) bf16 each."""
        pairs = codes.to(torch.uint8).reshape(len(codes), -1, 2)
        packed = pairs[..., 0] | (pairs[..., 1] << 4)
        return cls(packed, torch.stack((scales.T, zeros.T), dim=-1).contiguous())

    @staticmethod
    def rounded(weight: Tensor, group_size: int) -> Tensor:
        """What the whole range of each group, without a search, makes of the weights: quick enough for every step."""
        groups = weight.reshape(len(weight), -1, group_size)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        scales = ((high - low) / _TOP).clamp(min=1e-12).bfloat16().to(weight.dtype)
        zeros = ((high + low) / 2 + scales * (_MIDDLE - _TOP / 2)).bfloat16().to(weight.dtype)
        codes = ((groups - zeros) / scales).round_().clamp_(-_MIDDLE, _TOP - _MIDDLE)
        return torch.addcmul(zeros, codes, scales).reshape(weight.shape)

    @staticmethod
    def bytes_of(shape: tuple[int, int], group_size: int) -> int:
        """Of a matrix of this shape."""
        return shape[0] * shape[1] // 2 + 4 * shape[0] * shape[1] // group_size

    @staticmethod
    def fits(shape: tuple[int, int], group_size: int) -> bool:
        """Whether a matrix of this shape can be held."""
        return shape[1] % group_size == 0

    def unpacked(self) -> Tensor:
        """The codes, (N, K) uint8."""
        return torch.stack((self.codes & 15, self.codes >> 4), dim=-1).flatten(1)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """(N, K)."""
        scales, zeros = self.scales_and_zeros.to(dtype).transpose(0, 1).unbind(dim=-1)  # (N, K/g) each
        codes = self.unpacked().to(dtype).reshape(self.shape[0], -1, self.group_size) - _MIDDLE  # (N, K/g, g)
        return torch.addcmul(zeros[..., None], codes, scales[..., None]).flatten(1)

    def rows(self, ids: Tensor) -> Tensor:
        """(…) -> (…, K) fp32."""
        flat = ids.reshape(-1)
        some = Matrix(self.codes[flat], self.scales_and_zeros[:, flat].contiguous())
        return some.dequantize(torch.float32).view(*ids.shape, -1)

    def has_kernel(self) -> bool:
        """On a CPU, for rows that are a multiple of 16 and groups that the kernel knows."""
        rows, columns = self.shape
        known = self.group_size in GROUP_SIZES and rows % 16 == 0 and columns % self.group_size == 0
        return self.codes.device.type == "cpu" and known

    def packed_product(self, x: Tensor) -> Tensor:
        """(M, K) bf16 -> (M, N) bf16."""
        if self._for_kernel is None:
            wide = self.unpacked().to(torch.int32)
            self._for_kernel = torch.ops.aten._convert_weight_to_int4pack_for_cpu(wide, 1)
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.contiguous(), self._for_kernel, self.group_size, self.scales_and_zeros.bfloat16()
        )
        return product


def choose_scales(
    groups: Tensor, importance: Tensor | None = None, shrinks: Sequence[float] = _SHRINKS
) -> tuple[Tensor, Tensor]:
    """Scale and zero of each group, (N, G, g) -> (N, G) bf16 twice, from ranges ever smaller than the group's own.

    Args:
        importance: Weight of the errors of each input, (G, g).
        shrinks: Shares of the range that are tried.
    """
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    best: Any = None
    for shrink in shrinks:
        scales = ((high - low) * (shrink / _TOP)).clamp(min=1e-12).bfloat16()
        # The middle of the range stays where it is: code 8 means `zero`, codes 0 and 15 are the range's ends.
        middle = (high + low) / 2
        zeros = (middle + scales.float() * (_MIDDLE - _TOP / 2)).bfloat16()
        codes = round_to_codes(groups, scales, zeros) - _MIDDLE
        errors = torch.addcmul(zeros.float()[..., None], codes, scales.float()[..., None]).sub_(groups).square_()
        error = (errors if importance is None else errors * importance).sum(dim=-1)
        if best is None:
            best = [error, scales, zeros]
        else:
            better = error < best[0]
            for kept, new in zip(best, (error, scales, zeros), strict=True):
                kept[better] = new[better]
    return best[1], best[2]


def round_to_codes(groups: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """The nearest codes, 0 to 15, (N, G, g) -> (N, G, g) in floats."""
    centred = (groups - zeros.float()[..., None]) / scales.float()[..., None]
    return (centred.round_() + _MIDDLE).clamp_(0, _TOP)
