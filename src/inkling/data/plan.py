"""What becomes of each document: dropped, for training, for validation. Looks at hashes and sizes, not at text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inkling.data import dedup
from inkling.data.account import NUM_EXAMPLES, Account
from inkling.data.portions import Portions, count_reasons
from inkling.data.split import is_validation
from inkling.errors import DataError

DROPPED, TRAIN, VALIDATION = 0, 1, 2

SplitRule = Literal["auto", "hash", "tail"]
NearDuplicates = Literal["drop", "keep", "ignore"]


@dataclass(frozen=True)
class Plan:
    """The decisions.

    Attributes:
        decisions: (documents) uint8: DROPPED, TRAIN or VALIDATION.
        cut: (document, characters) where the split goes through a document: what comes before is for training.
        rule: The split, for people.
        notes: What else people should know.
    """

    decisions: np.ndarray
    cut: tuple[int, int] | None
    rule: str
    notes: list[str]

    @property
    def is_tail(self) -> bool:
        """Whether validation is the end of the text."""
        return self.rule.startswith("tail")


def make_plan(
    portions: Portions,
    account: Account,
    *,
    near_duplicates: NearDuplicates,
    split: SplitRule,
    val_fraction: float,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Drop duplicates and split; `account` is brought up to date.

    Of the documents of one cluster of near-duplicates, the one with the smallest hash is kept, and where all are kept,
    its hash decides the split for all: so the result does not depend on the order of the documents, and no near-copy
    of a validation document is trained on.

    Raises DataError when nothing is left, or when one side of the split would be empty.
    """
    duplicate = dedup.exact_duplicates(portions.column, portions.num_documents)
    _drop(portions, account, duplicate, "duplicate")
    kept = ~duplicate
    leader = np.arange(portions.num_documents)
    if near_duplicates != "ignore":
        root = dedup.clusters(portions.column, kept, on_progress)
        leader = _leaders(portions, root, kept)
    if near_duplicates == "drop":
        near = kept & (leader != np.arange(len(leader)))
        _drop(portions, account, near, "near_duplicate")
        kept &= ~near
    if not kept.any():
        raise DataError(
            f"no text is left: all {account.num_documents} documents were dropped ({count_reasons(account)})"
        )
    return _split(portions, kept, leader, split, val_fraction, seed)


def _drop(portions: Portions, account: Account, which: np.ndarray, reason: str) -> None:
    numbers = np.flatnonzero(which)
    num_bytes = sum(
        int(column[which[start : start + len(column)]].sum())
        for start, column in zip(portions.starts.tolist(), portions.column("num_bytes"), strict=False)
    )
    account.drop_kept(reason, len(numbers), num_bytes, portions.ids(numbers[:NUM_EXAMPLES].tolist()))


def _leaders(portions: Portions, root: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(documents): the document with the smallest hash of each document's cluster."""
    leader = np.arange(len(root))
    in_cluster = np.flatnonzero(kept & (np.bincount(root[kept], minlength=len(root))[root] > 1))
    if not len(in_cluster):
        return leader
    digests = _rows_of(portions, in_cluster)
    order = np.lexsort((digests[:, 1], digests[:, 0], root[in_cluster]))
    roots = root[in_cluster][order]
    first = np.concatenate([[True], roots[1:] != roots[:-1]])
    leader[in_cluster[order]] = in_cluster[order][np.flatnonzero(first)[np.cumsum(first) - 1]]
    return leader


def _rows_of(portions: Portions, numbers: np.ndarray) -> np.ndarray:
    """(numbers, 2) hashes of some documents, whose numbers are sorted."""
    rows = []
    for start, column in zip(portions.starts.tolist(), portions.column("digest"), strict=False):
        first, last = np.searchsorted(numbers, [start, start + len(column)])
        rows.append(column[numbers[first:last] - start])
    return np.concatenate(rows)


def _split(
    portions: Portions, kept: np.ndarray, leader: np.ndarray, split: SplitRule, val_fraction: float, seed: int
) -> Plan:
    by_own_hash = np.concatenate(
        [np.empty(0, bool), *(is_validation(column, val_fraction, seed) for column in portions.column("digest"))]
    )
    chosen = kept & by_own_hash[leader]
    characters = portions.whole_column("characters")
    total, num_documents = int(characters[kept].sum()), int(kept.sum())
    share = int(characters[chosen].sum()) / max(total, 1)
    if split == "hash" and not 0 < share < 1:
        raise DataError(f"splitting {num_documents} documents by hash leaves one side empty. Use --split tail")
    usable = 0.5 * val_fraction <= share <= 2 * val_fraction and share < 1
    decisions = kept.astype(np.uint8)  # DROPPED or TRAIN
    if split == "hash" or (split == "auto" and usable):
        decisions[chosen] = VALIDATION
        rule = f"hash: {share:.1%} of the text in {int(chosen.sum())} whole documents, chosen by their content"
        return Plan(decisions, None, rule, [])
    cut = int(total * (1 - val_fraction) + 1e-9)
    if not 0 < cut < total:
        raise DataError(f"the text has only {total} characters: too few to keep some for validation")
    ends = np.cumsum(np.where(kept, characters, 0))
    document = int(np.searchsorted(ends, cut, side="right"))
    head = cut - int(ends[document] - characters[document])
    decisions[document:][kept[document:]] = VALIDATION
    notes = []
    if split == "auto":
        notes.append(f"validation is the end of the text: {num_documents} documents are too few to choose from")
    rule = f"tail: the last {total - cut:,} of {total:,} characters"
    return Plan(decisions, (document, head) if head else None, rule, notes)
