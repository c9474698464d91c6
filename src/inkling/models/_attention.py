"""Causal attention inside documents, with or without a cache.

Shapes: B batch, T time, C hidden, H query heads, K key-value heads, D head size, S slots attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkling.models._cache import KVCache
from inkling.models._kernels import Documents
from inkling.models._layers import RMSNorm, for_products
from inkling.models._rope import RotaryTable, rotate
from inkling.models._scaled_dot import PLAIN, Scoring, attend


def text_positions(num_tokens: int, segment_ids: Tensor | None, cache: KVCache | None, device: torch.device) -> Tensor:
    """The place of each token in its own text: (T), or (B, T) where texts begin elsewhere."""
    if segment_ids is not None:
        return Documents(segment_ids).places
    return torch.arange(num_tokens, device=device) if cache is None else cache.positions(num_tokens)


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
        scoring: Scoring = PLAIN,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = head_dim
        self.scoring = scoring
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, num_key_value_heads * head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=output_bias)
        self.q_norm: nn.Module = nn.Identity() if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)
        self.k_norm: nn.Module = nn.Identity() if qk_norm_eps is None else RMSNorm(head_dim, eps=qk_norm_eps)

    def forward(
        self,
        x: Tensor,
        rotary: RotaryTable | None,
        mask: Tensor | Documents | None,
        cache: KVCache | None,
        added_values: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). Without `rotary` nothing is rotated.

        Args:
            added_values: What is added to the values, (B, T, K·D).
        """
        x, per_head = for_products(x), (-1, self.head_dim)
        q = self.q_norm(self.q_proj(x).unflatten(-1, per_head))  # (B, T, C) -> (B, T, H, D)
        k = self.k_norm(self.k_proj(x).unflatten(-1, per_head))  # (B, T, C) -> (B, T, K, D)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        values = self.v_proj(x)
        if added_values is not None:
            values = values + added_values.to(values.dtype)
        v = values.unflatten(-1, per_head)  # (B, T, C) -> (B, T, K, D)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # -> (B, H or K, T, D)
        if cache is None:
            seen = attend(q, k, v, mask, self.scoring)
        else:
            assert not isinstance(mask, Documents)
            seen = cache.attend(self.layer, q, k, v, mask, self.scoring)
        mixed: Tensor = self.o_proj(seen)
        return mixed
