"""A run in stages sees the windows of one without, in their order, each token once; its rows are cut shorter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_loader import EOT, split_of

from inkling.data.loader import PackedWindows
from inkling.data.stages import Stage, StagedWindows

CONTEXT, BATCH = 8, 4


@pytest.fixture
def windows(tmp_path: Path) -> PackedWindows:
    split, _ = split_of(tmp_path, [40, 3, 17, 8, 100, 2, 29, 57])  # 256 tokens: 32 windows an epoch
    return PackedWindows([(split, 1.0)], context=CONTEXT, batch_size=BATCH, seed=3, eot_id=EOT)


STAGES = [Stage(0, 2, 1), Stage(4, 4, 2), Stage(10, CONTEXT, BATCH)]
"""4 + 12 windows, then 4 a step: the first epoch ends with step 13."""


def test_one_stage_is_the_run_without_stages(windows: PackedWindows) -> None:
    staged = StagedWindows(windows)
    for step in (0, 5, 23):
        for rank in range(2):
            ours, wanted = (one.batch(step, rank=rank, world_size=2) for one in (staged, windows))
            assert np.array_equal(ours.input_ids, wanted.input_ids)
            assert np.array_equal(ours.targets, wanted.targets)
        assert staged.tokens(step) == BATCH * CONTEXT
        assert staged.epochs(step) == step * BATCH / windows.windows_per_epoch


def test_stages_predict_each_token_of_an_epoch_once_and_in_the_order_of_a_run_without(windows: PackedWindows) -> None:
    staged = StagedWindows(windows, STAGES)
    batches = [staged.batch(step) for step in range(14)]
    assert [batches[step].input_ids.shape for step in (0, 4, 10)] == [(4, 2), (4, 4), (4, 8)]
    assert [staged.tokens(step) for step in (0, 4, 10)] == [8, 16, 32]
    targets = np.concatenate([batch.targets.ravel() for batch in batches])
    without = np.concatenate([windows.batch(step).targets.ravel() for step in range(8)])
    assert np.array_equal(targets, without)
    assert set(Counter(targets[targets != EOT].tolist()).values()) == {1}
    assert staged.epochs(14) == 1.0
    assert len(targets) == sum(staged.tokens(step) for step in range(14)) == 256


def test_ranks_share_the_rows_of_each_stage(windows: PackedWindows) -> None:
    staged = StagedWindows(windows, STAGES)
    for step in (3, 4, 9, 10, 40):
        parts = [staged.batch(step, rank=rank, world_size=4).input_ids for rank in range(4)]
        assert np.array_equal(np.concatenate(parts), staged.batch(step).input_ids)
