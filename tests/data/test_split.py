"""Which documents are for validation, and which are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkling.data.dedup import ExactDuplicates
from inkling.data.split import content_hash, is_validation


def test_the_split_takes_about_its_share_and_depends_on_the_seed() -> None:
    hashes = [content_hash(str(number)) for number in range(4000)]
    share = sum(is_validation(value, 0.1, seed=0) for value in hashes) / 4000
    assert share == pytest.approx(0.1, abs=0.02)
    assert any(is_validation(v, 0.1, 0) != is_validation(v, 0.1, 1) for v in hashes)
    assert content_hash(" a\n") == content_hash("a")


def test_a_larger_share_keeps_what_a_smaller_one_chose() -> None:
    hashes = [content_hash(str(number)) for number in range(1000)]
    chosen = [{value for value in hashes if is_validation(value, share, seed=3)} for share in (0.05, 0.2, 0.9)]
    assert chosen[0] < chosen[1] < chosen[2]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything(share: float) -> None:
    assert {is_validation(content_hash(str(number)), share, seed=0) for number in range(200)} == {bool(share)}


@given(st.lists(st.text(alphabet="ab \n", max_size=4)))
def test_duplicates_are_texts_equal_but_for_white_space_at_their_ends(texts: list[str]) -> None:
    duplicates = ExactDuplicates()
    kept = [text.strip() for text in texts if duplicates.add(content_hash(text))]
    assert kept == list(dict.fromkeys(text.strip() for text in texts))


def test_hashes_have_128_bits() -> None:
    assert 2**120 < max(content_hash(str(number)) for number in range(1000)) < 2**128
