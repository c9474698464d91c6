"""INT8: one scale per row, symmetric. Multiplied by torch's `_weight_int8pack_mm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inkling.quantize._modules import PackedMatrix

_TOP = 127
_SHRINKS = (1.0, 0.97, 0.94, 0.91)
"""Shares of a row's largest weight that are tried as the largest one that can be said."""


class Matrix(PackedMatrix):
    """A matrix in 8 bits: weight = code × scale of its row.

    Args:
        codes: (N, K) int8.
        scales: (N) bf16, as the kernel takes them; codes are chosen for the rounded scales.
    """

    max_packed_rows = 32

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.shape = (codes.shape[0], codes.shape[1])
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.codes: Tensor
        self.scales: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int], group_size: int) -> Matrix:
        """Of this shape, its numbers to be loaded."""
        return cls(torch.empty(shape, dtype=torch.int8), torch.empty(shape[0], dtype=torch.bfloat16))

    @classmethod
    def quantize(
        cls, weight: Tensor, group_size: int, importance: Tensor | None = None, *, search: bool = True
    ) -> Matrix:
        """Round to nearest, the scale of each row chosen so that the squared error is least.

        Args:
            weight: (N, K).
            importance: Mean square of each input, (K), which weighs the errors of its column.
            search: False takes each row's whole range.
        """
        weight = weight.float().contiguous()  # GPT-2 holds its matrices turned
        largest = weight.abs().amax(dim=1).clamp(min=1e-20)
        best: Any = None
        for shrink in _SHRINKS if search else _SHRINKS[:1]:
            scales = (largest * shrink / _TOP).bfloat16()
            codes = (weight / scales.float()[:, None]).round_().clamp_(-_TOP, _TOP)
            error = (codes * scales.float()[:, None] - weight).square_()
            error = error.sum(dim=1) if importance is None else error @ importance
            if best is None:
                best = (error, scales, codes.to(torch.int8))
            else:
                better = error < best[0]
                best[0][better], best[1][better] = error[better], scales[better]
                best[2][better] = codes[better].to(torch.int8)
        return cls(best[2], best[1])

    @staticmethod
    def rounded(weight: Tensor, group_size: int) -> Tensor:
        """What the whole range of each row, without a search, makes of the weights: quick enough for every step."""
        scales = (weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-20) / _TOP).bfloat16().to(weight.dtype)
        return (weight / scales).round_().clamp_(-_TOP, _TOP).mul_(scales)

    @staticmethod
    def bytes_of(shape: tuple[int, int], group_size: int) -> int:
        """Of a matrix of this shape."""
        return shape[0] * shape[1] + 2 * shape[0]

    @staticmethod
    def fits(shape: tuple[int, int], group_size: int) -> bool:
        """Whether a matrix of this shape can be held."""
        return True

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """(N, K)."""
        return self.codes.to(dtype) * self.scales.to(dtype)[:, None]

    def rows(self, ids: Tensor) -> Tensor:
        """(…) -> (…, K) fp32."""
        return self.codes[ids].float() * self.scales[ids].float()[..., None]

    def has_kernel(self) -> bool:
        """On a CPU, for columns that are a multiple of 16: torch 2.13 reads past the end of others."""
        return self.codes.device.type == "cpu" and self.shape[1] % 16 == 0 and self.codes.is_contiguous()

    def packed_product(self, x: Tensor) -> Tensor:
        """(M, K) bf16 -> (M, N) bf16."""
        product: Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), self.codes, self.scales.bfloat16())
        return product
