"""Kernels of attention over whole rows, and which of them is asked: the one place where this is decided.

Shapes: B batch, T time, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

AttentionKernel = Literal["auto", "sdpa", "explicit", "flex", "varlen"]
"""
| kernel | what | where |
| --- | --- | --- |
| sdpa | torch's `scaled_dot_product_attention` | everywhere |
| explicit | products and softmax one after the other; keeps the scores for the backward pass | everywhere |
| flex | FlexAttention (arXiv 2412.05496), which leaves out blocks that nobody sees | packed rows on CUDA |
| varlen | FlashAttention over documents as sequences of their own (arXiv 2205.14135) | packed rows on CUDA, 16 bits |

`auto`: explicit for short rows in bf16 on a CPU, else sdpa.
"""

ON_CUDA: tuple[AttentionKernel, ...] = ("flex", "varlen")
"""Kernels that are worth asking on CUDA alone."""

_kernel: AttentionKernel = "auto"


@contextmanager
def attention_kernel(name: AttentionKernel) -> Iterator[None]:
    """Ask this kernel inside the block, wherever it can do what is wanted; elsewhere sdpa is asked."""
    global _kernel
    before, _kernel = _kernel, name
    try:
        yield
    finally:
        _kernel = before


def kernel_for(values: Tensor, num_queries: int) -> AttentionKernel:
    """The one that is asked now, `auto` resolved."""
    if _kernel != "auto":
        return _kernel
    narrow = values.device.type == "cpu" and values.dtype == torch.bfloat16
    return "explicit" if narrow and num_queries <= _EXPLICIT_MAX_QUERIES else "sdpa"


_EXPLICIT_MAX_QUERIES = 512
"""At 256 queries in bf16 on a CPU torch's fused kernel takes 1.8 times as long with AMX, at 1,024 as long."""


def other_kernels(values: Tensor, num_queries: int) -> list[AttentionKernel]:
    """What is worth timing in training beside what `auto` means for such values."""
    names: tuple[AttentionKernel, ...] = ON_CUDA if values.device.type == "cuda" else ("sdpa", "explicit")
    with attention_kernel("auto"):
        return [name for name in names if name != kernel_for(values, num_queries)]


class Documents:
    """Who sees whom in packed rows: a token sees itself and earlier ones of its document.

    What the kernels want to know of that is made when the first layer asks, and kept for the others.

    Args:
        segment_ids: The document of each position, (B, T), equal neighbours being one document.
    """

    def __init__(self, segment_ids: Tensor) -> None:
        self.segment_ids = segment_ids
        self._mask: Tensor | None = None  # and no `cached_property`, whose lock torch.compile does not know
        self._ends: Tensor | None = None
        self._blocks: dict[int | None, Any] = {}

    @property
    def mask(self) -> Tensor:
        """True where a query sees a key, (B, 1, T, T)."""
        if self._mask is None:
            segments = self.segment_ids
            T = segments.shape[1]
            causal = torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
            self._mask = ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]
        return self._mask

    @property
    def places(self) -> Tensor:
        """The place of each token in its document, from 0, (B, T)."""
        segments = self.segment_ids
        index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
        return index - index.where(self._begins, 0).cummax(dim=1).values

    @property
    def _begins(self) -> Tensor:
        """True at the first token of each document, (B, T)."""
        begins = torch.ones_like(self.segment_ids, dtype=torch.bool)
        begins[:, 1:] = self.segment_ids[:, 1:] != self.segment_ids[:, :-1]
        return begins

    def blocks(self, window: int | None) -> Any:
        """The same for FlexAttention, inside a window where there is one."""
        if window not in self._blocks:
            self._blocks[window] = self._block_mask(window)
        return self._blocks[window]

    def _block_mask(self, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        segments = self.segment_ids
        B, T = segments.shape

        def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = (segments[b, query] == segments[b, key]) & (query >= key)
            return same if window is None else same & (query - key < window)

        return create_block_mask(sees, B, None, T, T, device=segments.device)

    @property
    def ends(self) -> Tensor:
        """Where documents begin and end in all rows one behind the other, from 0 to B·T; int32."""
        if self._ends is None:
            places = self._begins.flatten().nonzero()[:, 0]
            self._ends = torch.cat((places, places.new_full((1,), self._begins.numel()))).to(torch.int32)
        return self._ends


def attend_in_documents(
    queries: Tensor, keys: Tensor, values: Tensor, documents: Documents, window: int | None
) -> Tensor | None:
    """Softmax attention by the kernel that is asked for packed rows, (B, H, T, D) -> (B, H, T, D).

    None where that kernel cannot do it: another one is to be asked.
    """
    dtype = values.dtype
    queries, keys = queries.to(dtype), keys.to(dtype)
    if _kernel == "flex":
        flex = _compiled_flex() if queries.device.type == "cuda" else _flex()
        mixed: Tensor = flex(
            queries, keys, values, block_mask=documents.blocks(window), enable_gqa=keys.shape[1] != queries.shape[1]
        )
        return mixed
    if _kernel == "varlen" and queries.device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        return _attend_varlen(queries, keys, values, documents, window)
    return None


def _flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(_flex())


def _attend_varlen(queries: Tensor, keys: Tensor, values: Tensor, documents: Documents, window: int | None) -> Tensor:
    """FlashAttention 2, which torch brings along, or 3 where that is installed."""
    from torch.nn.attention.varlen import varlen_attn

    B, H, T, D = queries.shape
    _prefer_flash_attention_3()
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (queries, keys, values))  # (B·T, H or K, D)
    ends = documents.ends
    mixed = varlen_attn(
        q,
        k,
        v,
        ends,
        ends,
        T,
        T,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=keys.shape[1] != H,
    )
    assert isinstance(mixed, Tensor)
    return mixed.view(B, T, H, D).transpose(1, 2)


@cache
def _prefer_flash_attention_3() -> None:
    """Hopper GPUs have a faster kernel in a package of its own, flash_attn_interface."""
    from importlib.util import find_spec

    if find_spec("flash_attn_interface") is not None and torch.cuda.get_device_capability()[0] == 9:
        from torch.nn.attention import activate_flash_attention_impl

        activate_flash_attention_impl("FA3")
