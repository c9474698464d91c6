"""Answers to the same prompt in one row, the prompt once: what all of an item begin with is computed once for them.

Letters as in `sequences`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from inkling.models import Branches
from inkling.train.sequences import Sequences, Tokens


def can_branch(items: Sequence[Sequence[Tokens]]) -> bool:
    """Whether it is possible, and of any use: some item has several sequences, and no picture is in them."""
    has_several = any(len(item) > 1 for item in items)
    has_pictures = any(len(one.pictures) for item in items for one in item)
    return has_several and not has_pictures


def num_shared(item: Sequence[Tokens]) -> int:
    """Tokens that all sequences of an item begin with, but for the last token of each, which predicts nothing."""
    most = min(len(one.ids) for one in item) - 1
    columns = zip(*(one.ids[:most] for one in item), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), most)


def num_computed(item: Sequence[Tokens]) -> int:
    """Tokens that the model computes for an item."""
    shared = num_shared(item)
    return shared + sum(len(one.ids) - 1 - shared for one in item)


def lay_out_branching(items: Sequence[Sequence[Tokens]], device: torch.device) -> Sequences:
    """All items as one row, as `Branches` has it; else the same as `lay_out` of all their sequences.

    Args:
        items: The sequences of each begin with the same token, as those of an `Encoder` do.
    """
    shared = [num_shared(item) for item in items]
    ids: list[int] = []
    for item, size in zip(items, shared, strict=True):
        ids += item[0].ids[:size]
    branches, places, learnt_ids, owners, num = [], [], [], [], 0
    stem = 0
    for number, (item, size) in enumerate(zip(items, shared, strict=True)):
        for one in item:
            at = np.arange(stem, stem + len(one.ids) - 1)  # where each of its tokens but the last is in the row
            at[size:] += len(ids) - stem - size
            if len(one.ids) - 1 > size:
                branches.append((number, len(one.ids) - 1 - size))
                ids += one.ids[size:-1]
            learnt = np.asarray(one.is_learnt, dtype=bool)[1:]
            places.append(at[learnt])
            learnt_ids.append(np.asarray(one.ids, dtype=np.int64)[1:][learnt])
            owners.append(np.full(learnt.sum(), num))
            num += 1
        stem += size
    return Sequences(
        torch.tensor([ids], device=device),
        None,
        places=torch.from_numpy(np.concatenate(places)).to(device),
        learnt_ids=torch.from_numpy(np.concatenate(learnt_ids)).to(device),
        owners=torch.from_numpy(np.concatenate(owners)).to(device),
        num=num,
        branches=Branches(shared, branches, device),
    )
