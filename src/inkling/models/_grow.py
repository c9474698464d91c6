"""A trained model with more tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkling.models._model import LanguageModel


def with_more_tokens(
    model: LanguageModel, num_tokens: int, spelled: Sequence[Sequence[int]], vocab_size: int
) -> LanguageModel:
    """A model of the same architecture whose vocabulary has `vocab_size` rows; the old rows are the same bit for bit.

    Args:
        num_tokens: Tokens of the old tokenizer; rows beyond them are padding.
        spelled: For each new token, from the tokenizer's first new id on, the old tokens that spelled it: its row is
            their mean, in the embedding and in the head. Rows beyond these are padding: the mean of all.
    """
    from inkling import models

    config = type(model.config).from_dict({**model.config.to_dict(), "vocab_size": vocab_size})
    with torch.device("meta"):
        grown = models.load(config.model_type).Model(config)
    expected = grown.state_dict()
    weights = {}
    for name, weight in model.state_dict().items():
        if weight.shape != expected[name].shape:
            weight = _grown(weight[:num_tokens], spelled, vocab_size)
        weights[name] = weight
    grown.load_state_dict(weights, assign=True)
    return grown.eval()


def _grown(weight: Tensor, spelled: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """(V, C) -> (V', C)."""
    rows = [weight[list(ids)].float().mean(dim=0).to(weight.dtype) for ids in spelled]
    num_padding = vocab_size - len(weight) - len(rows)
    padding = weight.float().mean(dim=0).to(weight.dtype).expand(num_padding, -1)
    return torch.cat([weight, *(row[None] for row in rows), padding])
