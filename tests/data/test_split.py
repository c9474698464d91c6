"""Which documents are for validation, and which are the same."""

from __future__ import annotations

import numpy as np
import pytest

from inkling.data.split import as_digests, content_hash, is_validation

DIGESTS = as_digests([content_hash(str(number)) for number in range(4000)])


def test_the_split_takes_about_its_share_and_depends_on_the_seed() -> None:
    assert is_validation(DIGESTS, 0.1, seed=0).mean() == pytest.approx(0.1, abs=0.02)
    assert (is_validation(DIGESTS, 0.1, 0) != is_validation(DIGESTS, 0.1, 1)).any()
    assert content_hash(" a\n") == content_hash("a")


def test_a_larger_share_keeps_what_a_smaller_one_chose() -> None:
    chosen = [set(np.flatnonzero(is_validation(DIGESTS, share, seed=3)).tolist()) for share in (0.05, 0.2, 0.9)]
    assert chosen[0] < chosen[1] < chosen[2]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything(share: float) -> None:
    assert set(is_validation(DIGESTS, share, seed=0).tolist()) == {bool(share)}


def test_hashes_have_128_bits() -> None:
    assert (DIGESTS.max(axis=0) > 2**60).all()
    assert len(np.unique(DIGESTS, axis=0)) == len(DIGESTS)
