"""Softmax attention on the best kernel there is.

Shapes: B batch, T time, H query heads, K key-value heads, D head size, S slots attended to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.models._kernels import Documents, attend_in_documents, kernel_for


def without_autocast(x: Tensor) -> torch.autocast:
    """Where numbers stay in the precision that they have."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


@dataclass(frozen=True)
class Scoring:
    """How a layer scores keys, where that is not a plain product over all earlier tokens.

    Attributes:
        scale: Factor of the products of queries and keys; None: D ** -0.5.
        softcap: Scores stay below this: cap · tanh(score / cap), as in Gemma 2 (arXiv 2408.00118).
        window: A token sees itself and the `window` - 1 tokens before it (Beltagy et al. 2020, arXiv 2004.05150).
        slopes: ALiBi (Press et al. 2021, arXiv 2108.12409): for each head, what a token loses per token of distance.
        value_dim: Values are the first `value_dim` numbers of the keys, as where both are one latent.
    """

    scale: float | None = None
    softcap: float | None = None
    window: int | None = None
    slopes: tuple[float, ...] | None = None
    value_dim: int | None = None


PLAIN = Scoring()


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | Documents | None,
    scoring: Scoring = PLAIN,
    distance: Tensor | None = None,
) -> Tensor:
    """Softmax attention: (B, H, T, D), (B, K, S, D) twice -> (B, T, H·D).

    Args:
        mask: True where a query sees a key, broadcastable to (B, H, T, S); or the documents of packed rows. None:
            causal for more than one query, everything for a single one.
        distance: From each query back to each key, broadcastable as the mask is. None: the queries are the last T of
            the S slots.
    """
    B, H, T, D = queries.shape
    S = keys.shape[2]
    if scoring.value_dim is not None:
        values = keys[..., : scoring.value_dim]
    if scoring.scale is not None:
        queries = queries * (scoring.scale * D**0.5)
    if isinstance(mask, Documents):
        if scoring.softcap is None and scoring.slopes is None:
            found = attend_in_documents(queries, keys, values, mask, scoring.window)
            if found is not None:
                return found.transpose(1, 2).reshape(B, T, -1)  # (B, H, T, D) -> (B, T, H·D)
        mask = mask.mask
    explicit = scoring.softcap is not None or (T > 1 and kernel_for(values, T) == "explicit")
    near = scoring.window is not None and scoring.window < S
    if near or scoring.slopes is not None or (mask is None and T > 1 and explicit):
        if distance is None:
            distance = torch.arange(S - T, S, device=queries.device)[:, None] - torch.arange(S, device=queries.device)
        mask = _scored_mask(mask, distance, scoring)
    if explicit:
        mixed = attend_explicitly(queries, keys, values, mask, scoring.softcap)
    else:
        causal = grouped = False  # not `= T > 1`: compiled for any length that is a symbol, and the kernel takes none
        if mask is None and T > 1:
            causal = True
        if keys.shape[1] != H:
            grouped = True
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(queries.dtype)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=grouped
        )
    return mixed.transpose(1, 2).reshape(B, T, -1)  # (B, H, T, D) -> (B, T, H·D)


def _scored_mask(mask: Tensor | None, distance: Tensor, scoring: Scoring) -> Tensor:
    """The mask with the window in it; with slopes no longer true and false but numbers to add to the scores."""
    seen = distance >= 0 if mask is None else mask
    if scoring.window is not None:
        seen = seen & (distance < scoring.window)
    if scoring.slopes is None:
        return seen
    slopes = torch.tensor(scoring.slopes, device=distance.device)[:, None, None]
    return (-slopes * distance).masked_fill(~seen, float("-inf"))  # (H, T, S), or with rows (B, H, T, S)


def attend_explicitly(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, softcap: float | None
) -> Tensor:
    """The same as torch's fused attention, written out. It keeps the (B, H, T, S) scores for the backward pass."""
    H, dtype = queries.shape[1], values.dtype
    if keys.shape[1] != H:
        keys, values = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (keys, values))  # K -> H
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    with without_autocast(queries):  # which would turn the softmax, and what follows, to fp32
        scores = (queries * queries.shape[-1] ** -0.5).to(dtype) @ keys.to(dtype).transpose(-1, -2)  # (B, H, T, S)
        if softcap is not None:
            scores = softcap * (scores.float() / softcap).tanh()
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        mixed: Tensor = scores.softmax(dim=-1).to(dtype) @ values
    return mixed
