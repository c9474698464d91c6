"""What stands in a quantized model in the place of its matrices.

Shapes: N rows (outputs), K columns (inputs), M rows of input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNMENT = 64
"""Bytes. torch's own allocator keeps to it."""


class PackedMatrix(nn.Module, ABC):
    """A matrix (N, K) whose numbers are packed.

    Attributes:
        shape: (N, K).
    """

    shape: tuple[int, int]
    max_packed_rows: int
    """Up to so many rows of input the packed product is faster than unpacking first; measured."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The matrix that this one stands for, (N, K)."""

    @abstractmethod
    def rows(self, ids: Tensor) -> Tensor:
        """Some rows in fp32, (…) -> (…, K)."""

    @abstractmethod
    def has_kernel(self) -> bool:
        """Whether torch has a product for this matrix where it is. A wrong shape would end the process."""

    @abstractmethod
    def packed_product(self, x: Tensor) -> Tensor:
        """`x @ matrix.T`, (M, K) bf16 -> (M, N) bf16."""

    def multiply(self, x: Tensor) -> Tensor:
        """`x @ matrix.T`, (…, K) -> (…, N)."""
        self._align()
        flat = x.reshape(-1, x.shape[-1])  # (…, K) -> (M, K)
        differentiated = torch.is_grad_enabled() and x.requires_grad  # which the packed product cannot be
        if len(flat) <= self.max_packed_rows and self.has_kernel() and not differentiated:
            product = self.packed_product(flat.bfloat16())
        else:
            dtype = wide_dtype(x.device.type)
            product = F.linear(flat.to(dtype), self.dequantize(dtype))
        return product.to(x.dtype).reshape(*x.shape[:-1], -1)

    def _align(self) -> None:
        """Move numbers that lie askew, as in a file that was mapped into memory: the kernels would end the process."""
        for name, tensor in self._buffers.items():
            if tensor is not None and tensor.data_ptr() % _ALIGNMENT:
                self._buffers[name] = tensor.clone()


@cache
def wide_dtype(device_type: str) -> torch.dtype:
    """In which many rows are multiplied: bf16 where the hardware has it."""
    has_bf16 = device_type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


class QuantizedLinear(nn.Module):
    """A linear layer with a packed matrix; the bias, if any, stays as it was."""

    def __init__(self, matrix: PackedMatrix, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix = matrix
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) -> (…, N)."""
        product = self.matrix.multiply(x)
        return product if self.bias is None else product + self.bias


class QuantizedTable(nn.Module):
    """An embedding, or an embedding that is also the head, as a packed matrix (V, C)."""

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, ids: Tensor) -> Tensor:
        """Embed, (…) -> (…, C)."""
        return self.matrix.rows(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Project, (…, C) -> (…, V)."""
        return self.matrix.multiply(hidden)


class QuantizedHead(QuantizedLinear):
    """An output projection of its own."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Project, (…, C) -> (…, V)."""
        product: Tensor = self(hidden)
        return product
