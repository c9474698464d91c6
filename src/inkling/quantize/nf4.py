"""NF4: the sixteen values that suit normally distributed weights, a scale for each group of inputs in a row.

Dettmers et al. 2023 (QLoRA, arXiv 2305.14314), appendix E. To hold a frozen model in a quarter of bf16's memory while
adapters of it are trained; there is no kernel, so that it is unpacked for each product.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from inkling.quantize._modules import PackedMatrix

_OFFSET = 0.5 * (1 - 1 / 32 + 1 - 1 / 30)
"""Where the outermost quantiles are taken: between those of 16 and of 15 values, as the paper has it."""


@cache
def levels() -> Tensor:
    """The sixteen values, rising from -1 to 1, with an exact zero. (16)"""
    quantiles = torch.special.ndtri
    positive = quantiles(torch.linspace(_OFFSET, 0.5, 9, dtype=torch.float64)[:-1])
    negative = -quantiles(torch.linspace(_OFFSET, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive]).sort().values
    return (values / values.max()).float()


class Matrix(PackedMatrix):
    """A matrix in 4 bits: weight = level of its code × scale of its group.

    Args:
        codes: Two in a byte, the first in its low half, (N, K/2) uint8.
        scales: (N, K/g) bf16.
    """

    max_packed_rows = 0

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.shape = (codes.shape[0], 2 * codes.shape[1])
        self.group_size = self.shape[1] // scales.shape[1]
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.codes: Tensor
        self.scales: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int], group_size: int) -> Matrix:
        """Of this shape, its numbers to be loaded."""
        rows, columns = shape
        codes = torch.empty(rows, columns // 2, dtype=torch.uint8)
        return cls(codes, torch.empty(rows, columns // group_size, dtype=torch.bfloat16))

    @classmethod
    def quantize(
        cls, weight: Tensor, group_size: int, importance: Tensor | None = None, *, search: bool = True
    ) -> Matrix:
        """Round to the nearest level of each group's largest value, (N, K)."""
        groups = weight.float().reshape(len(weight), -1, group_size)  # (N, K) -> (N, K/g, g)
        scales = groups.abs().amax(dim=-1).clamp(min=1e-12).bfloat16()
        borders = (levels()[1:] + levels()[:-1]) / 2
        codes = torch.bucketize(groups / scales.float()[..., None], borders.to(weight.device))
        pairs = codes.flatten(1).to(torch.uint8).reshape(len(weight), -1, 2)
        return cls(pairs[..., 0] | (pairs[..., 1] << 4), scales)

    @staticmethod
    def bytes_of(shape: tuple[int, int], group_size: int) -> int:
        """Of a matrix of this shape."""
        return shape[0] * shape[1] // 2 + 2 * shape[0] * shape[1] // group_size

    @staticmethod
    def fits(shape: tuple[int, int], group_size: int) -> bool:
        """Whether a matrix of this shape can be held."""
        return shape[1] % group_size == 0

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """(N, K)."""
        codes = torch.stack((self.codes & 15, self.codes >> 4), dim=-1).reshape(self.shape[0], -1, self.group_size)
        values = levels().to(self.codes.device, dtype)[codes.long()]
        return (values * self.scales.to(dtype)[..., None]).flatten(1)

    def rows(self, ids: Tensor) -> Tensor:
        """(…) -> (…, K) fp32."""
        flat = ids.reshape(-1)
        return Matrix(self.codes[flat], self.scales[flat]).dequantize(torch.float32).view(*ids.shape, -1)

    def has_kernel(self) -> bool:
        """None."""
        return False

    def packed_product(self, x: Tensor) -> Tensor:
        """Never asked for."""
        raise NotImplementedError
