"""Causal attention inside documents, with or without a cache.

Shapes: B batch, T time, C hidden, H query heads, K key-value heads, D head size, S slots attended to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkling.models._cache import KVCache
from inkling.models._layers import RMSNorm, RotaryTable, rotate


def document_mask(segment_ids: Tensor) -> Tensor:
    """Who sees whom, (B, T) -> (B, T, T): earlier tokens and itself, inside the same document."""
    T = segment_ids.shape[1]
    causal = torch.ones(T, T, dtype=torch.bool, device=segment_ids.device).tril()
    return (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention: (B, H, T, D), (B, K, S, D) twice -> (B, T, H·D).

    Args:
        mask: True where a query sees a key, broadcastable to (B, H, T, S). None: causal for more than one query,
            everything for a single one.
    """
    B, H, T, D = queries.shape
    grouped = keys.shape[1] != H
    if values.device.type == "cpu" and values.dtype == torch.bfloat16 and 1 < T <= _EXPLICIT_MAX_QUERIES:
        mixed = _attend_explicitly(queries, keys, values, mask)
    else:
        causal = mask is None and T > 1
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=grouped
        )
    return mixed.transpose(1, 2).reshape(B, T, H * D)  # (B, H, T, D) -> (B, T, H·D)


_EXPLICIT_MAX_QUERIES = 512
"""On a CPU with AVX512-BF16, torch's fused bf16 kernel takes 2.8 times as long at 128 queries, 1.5 times at 512."""


def _attend_explicitly(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """The same as torch's fused attention, written out. It keeps the (B, H, T, S) scores for the backward pass."""
    H, T, S, dtype = queries.shape[1], queries.shape[2], keys.shape[2], values.dtype
    if keys.shape[1] != H:
        keys, values = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (keys, values))  # K -> H
    if mask is None:
        mask = torch.ones(T, S, dtype=torch.bool, device=queries.device).tril()
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    with torch.autocast("cpu", enabled=False):  # which would turn the softmax, and all that follows, to fp32
        scores = (queries * queries.shape[-1] ** -0.5).to(dtype) @ keys.to(dtype).transpose(-1, -2)  # (B, H, T, S)
        scores += hidden
        mixed: Tensor = scores.softmax(dim=-1) @ values
    return mixed


class RotaryAttention(nn.Module):
    """Grouped-query attention with rotary positions, and optionally normalised queries and keys.

    GQA: Ainslie et al. 2023 (arXiv 2305.13245). QK-norm: Henry et al. 2020 (arXiv 2010.04245), per head, before
    the rotation, as Qwen3 does.
    """

    def __init__(
        self,
        layer: int,
        *,
        hidden_size: int,
        num_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        qkv_bias: bool,
        output_bias: bool,
        qk_norm_eps: float | None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = head_dim
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=output_bias)
        self.q_norm: nn.Module = nn.Identity() if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)
        self.k_norm: nn.Module = nn.Identity() if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)

    def forward(self, x: Tensor, rotary: RotaryTable, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        per_head = (-1, self.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).unflatten(-1, per_head)), rotary)  # (B, T, C) -> (B, T, H, D)
        k = rotate(self.k_norm(self.k_proj(x).unflatten(-1, per_head)), rotary)  # (B, T, C) -> (B, T, K, D)
        v = self.v_proj(x).unflatten(-1, per_head)  # (B, T, C) -> (B, T, K, D)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # -> (B, H or K, T, D)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        mixed: Tensor = self.o_proj(attend(q, k, v, mask))
        return mixed
