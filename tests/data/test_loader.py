"""Batches against brute force: each token once an epoch, in documents' order, whatever was asked before."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from inkling.data.loader import IGNORED, PackedWindows, sequential_windows, windows_of_ids
from inkling.data.shards import ShardInfo, TokenSplit, token_dtype, write_shard
from inkling.errors import DataError

EOT = 0


def split_of(folder: Path, lengths: list[int], per_shard: int = 3) -> tuple[TokenSplit, list[np.ndarray]]:
    """Documents whose tokens are all different numbers, so that each can be told where it comes from."""
    documents, first = [], 1
    for length in lengths:
        documents.append(np.array([*range(first, first + length - 1), EOT]))
        first += length
    shards: list[ShardInfo] = []
    for number, start in enumerate(range(0, len(documents), per_shard)):
        some = documents[start : start + per_shard]
        tokens = np.concatenate(some).astype(token_dtype(70_000))
        ends = np.cumsum([len(document) for document in some])
        shards.append(write_shard(folder, f"{number:05d}", tokens, ends, 0))
    return TokenSplit(folder, shards, token_dtype(70_000)), documents


@pytest.mark.parametrize("lengths", [[40, 3, 17, 8, 100, 2, 29], [500], [5] * 60])
def test_each_epoch_predicts_each_token_once(tmp_path: Path, lengths: list[int]) -> None:
    split, _ = split_of(tmp_path, lengths)
    windows = PackedWindows([(split, 1.0)], context=7, batch_size=1, seed=3, eot_id=EOT)
    per_epoch = windows.windows_per_epoch
    assert per_epoch == sum(lengths) // 7
    orders = []
    for epoch in range(2):
        batches = [windows.batch(step) for step in range(epoch * per_epoch, (epoch + 1) * per_epoch)]
        targets = np.concatenate([batch.targets.ravel() for batch in batches])
        counts = Counter(targets[targets != EOT].tolist())
        assert set(counts.values()) == {1}
        assert len(targets) == per_epoch * 7
        orders.append(targets.tolist())
    assert orders[0] != orders[1]


def test_windows_follow_the_documents(tmp_path: Path) -> None:
    """Within a document tokens follow each other; after its end comes the start of some document."""
    split, documents = split_of(tmp_path, [40, 3, 17, 8, 100, 2, 29])
    follows = {int(a): int(b) for document in documents for a, b in pairwise(document)}
    starts = {int(document[0]) for document in documents}
    windows = PackedWindows([(split, 1.0)], context=11, batch_size=4, seed=1, eot_id=EOT)
    for step in range(12):
        batch = windows.batch(step)
        for given, wanted in zip(batch.input_ids.ravel(), batch.targets.ravel(), strict=True):
            assert wanted in starts if given == EOT else wanted == follows[given]


def test_a_step_is_the_same_whatever_was_asked_before(tmp_path: Path) -> None:
    split, _ = split_of(tmp_path, [40, 3, 17, 8, 100, 2, 29])
    fresh = PackedWindows([(split, 1.0)], context=7, batch_size=4, seed=1, eot_id=EOT)
    worn = PackedWindows([(split, 1.0)], context=7, batch_size=4, seed=1, eot_id=EOT)
    for step in (9, 0, 20):
        worn.batch(step)
    assert np.array_equal(fresh.batch(13).input_ids, worn.batch(13).input_ids)
    other = PackedWindows([(split, 1.0)], context=7, batch_size=4, seed=2, eot_id=EOT)
    assert not np.array_equal(fresh.batch(13).input_ids, other.batch(13).input_ids)


def test_the_batch_size_does_not_change_the_order(tmp_path: Path) -> None:
    split, _ = split_of(tmp_path, [40, 3, 17, 8, 100, 2, 29])
    small = PackedWindows([(split, 1.0)], context=7, batch_size=2, seed=1, eot_id=EOT)
    large = PackedWindows([(split, 1.0)], context=7, batch_size=6, seed=1, eot_id=EOT)
    joined = np.concatenate([small.batch(step).input_ids for step in range(9)])
    assert np.array_equal(joined, np.concatenate([large.batch(step).input_ids for step in range(3)]))


def test_segments_begin_at_each_end_of_text(tmp_path: Path) -> None:
    split, _ = split_of(tmp_path, [5] * 60)
    batch = PackedWindows([(split, 1.0)], context=12, batch_size=4, seed=1, eot_id=EOT).batch(0)
    assert batch.segment_ids is not None
    for row, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
        expected, current = [], 0
        for token in row:
            current += token == EOT
            expected.append(current)
        assert segments.tolist() == expected
    whole, _ = split_of(tmp_path / "b", [500])
    batches = [
        PackedWindows([(whole, 1.0)], context=12, batch_size=1, seed=1, eot_id=EOT).batch(step) for step in range(41)
    ]
    assert sum(batch.segment_ids is None for batch in batches) >= 39


@pytest.mark.parametrize(("context", "batch_size"), [(7, 3), (10, 1), (300, 2)])
def test_evaluation_predicts_everything_once_in_order(tmp_path: Path, context: int, batch_size: int) -> None:
    split, documents = split_of(tmp_path, [40, 3, 17, 8])
    stream = np.concatenate(documents)
    batches = list(sequential_windows(split, context, batch_size, EOT))
    targets = np.concatenate([batch.targets.ravel() for batch in batches])
    inputs = np.concatenate([batch.input_ids.ravel() for batch in batches])
    predicted = targets != IGNORED
    assert np.array_equal(targets[predicted], stream)
    assert np.array_equal(inputs[predicted], np.concatenate([[EOT], stream[:-1]]))
    ids = np.concatenate([[EOT], stream])
    again = list(windows_of_ids(ids, context, batch_size, EOT))
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(batches, again, strict=True))


def test_too_little_text_names_the_number_to_lower(tmp_path: Path) -> None:
    split, _ = split_of(tmp_path, [40])
    with pytest.raises(DataError, match="40 tokens, less than one context of 64"):
        PackedWindows([(split, 1.0)], context=64, batch_size=1, seed=1, eot_id=EOT)
    with pytest.raises(DataError, match="Lower --batch-size to 5"):
        PackedWindows([(split, 1.0)], context=8, batch_size=6, seed=1, eot_id=EOT)
