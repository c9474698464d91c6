"""Duplicates and near-duplicates, compared with similarities counted one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import words
from inkling.data import dedup, minhash
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.shards import Dataset
from inkling.data.shingles import shingles
from inkling.data.split import as_digests, content_hash
from inkling.tokenizer import Tokenizer


def runs_of_words(text: str, size: int) -> list[tuple[str, ...]]:
    """The definition that `shingles` hashes, by a regular expression."""
    ideographs = "\u3000-\ud7ff"  # the blocks whose first byte is 0xE3 to 0xED
    found = re.findall(
        f"[{ideographs}](?:[^\x00-\x7f{ideographs}]|[A-Za-z0-9_])*|(?:[A-Za-z0-9_]|[^\x00-\x7f{ideographs}])+", text
    )
    tokens = ["".join(c.lower() if c.isascii() else c for c in word) for word in found]
    return [tuple(tokens[i : i + size]) for i in range(max(len(tokens) - size + 1, min(len(tokens), 1)))]


@given(st.lists(st.text(alphabet="aB9_ .\né日本かa\U0001f331", max_size=30), max_size=6), st.integers(1, 5))
def test_equal_runs_of_words_have_equal_hashes_and_others_do_not(texts: list[str], size: int) -> None:
    hashes, numbers = shingles([text.encode() for text in texts], size)
    wanted = [(number, run) for number, text in enumerate(texts) for run in runs_of_words(text, size)]
    assert numbers.tolist() == [number for number, _ in wanted]
    seen = dict(zip((run for _, run in wanted), hashes.tolist(), strict=True))
    assert [seen[run] for _, run in wanted] == hashes.tolist()
    assert len(set(seen.values())) == len(seen)


def test_long_texts_are_hashed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = words(1, 500).encode()
    whole = shingles([text, b"", text], 5)
    monkeypatch.setattr("inkling.data.shingles._BLOCK_BYTES", 64)
    parts = shingles([text, b"", text], 5)
    assert (whole[0] == parts[0]).all()
    assert (whole[1] == parts[1]).all()
    assert len(whole[0]) == 2 * len(runs_of_words(text.decode(), 5))


def vary(text: str, num_changes: int, seed: int) -> str:
    random = np.random.default_rng(seed)
    tokens = text.split(" ")
    for number in range(num_changes):
        tokens[random.integers(len(tokens))] = f"changed{number}"
    return " ".join(tokens)


def jaccard(first: str, second: str) -> float:
    one, two = set(runs_of_words(first, 5)), set(runs_of_words(second, 5))
    return len(one & two) / len(one | two)


@pytest.mark.parametrize("num_words", [40, 200, 1500])
def test_signatures_estimate_the_jaccard_similarity(num_words: int) -> None:
    errors = []
    for seed in range(40):
        first = " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(0, 10_000, num_words))
        second = vary(first, seed * num_words // 400, seed)
        signed = minhash.signatures([first.encode(), second.encode()])["slots"]
        errors.append(float(minhash.similarity(signed[:1], signed[1:])[0]) - jaccard(first, second))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.06


class Columns:
    """Documents as the deduplication sees them, in portions of 7."""

    def __init__(self, texts: list[str]) -> None:
        signed = minhash.signatures([text.encode() for text in texts])
        self.columns = {"digest": as_digests([content_hash(text) for text in texts]), "slots": signed["slots"]}
        self.columns |= {f"keys-{band}": signed["keys"][:, band] for band in range(minhash.NUM_BANDS)}

    def __call__(self, name: str) -> Iterator[np.ndarray]:
        column = self.columns[name]
        return (column[start : start + 7] for start in range(0, len(column), 7))


@given(st.lists(st.text(alphabet="ab \n", max_size=4)))
def test_duplicates_are_texts_equal_but_for_white_space_at_their_ends(texts: list[str]) -> None:
    duplicate = dedup.exact_duplicates(Columns(texts), len(texts))
    kept = [text.strip() for text, is_duplicate in zip(texts, duplicate, strict=True) if not is_duplicate]
    assert kept == list(dict.fromkeys(text.strip() for text in texts))


@pytest.mark.parametrize("max_pass", [dedup.MAX_PASS, 10])
def test_clusters_are_the_groups_of_near_copies(monkeypatch: pytest.MonkeyPatch, max_pass: int) -> None:
    monkeypatch.setattr(dedup, "MAX_PASS", max_pass)
    texts, families = [], []
    for family in range(12):
        original = " ".join(f"w{n}" for n in np.random.default_rng(family).integers(0, 5000, 400))
        for copy in range(family % 4):
            texts.append(vary(original, 3, copy))
            families.append(family)
    order = np.random.default_rng(0).permutation(len(texts))
    texts, families = [texts[i] for i in order], [families[i] for i in order]
    root = dedup.clusters(Columns(texts), np.ones(len(texts), bool))
    assert root.tolist() == [families.index(family) for family in families]
    alone = dedup.clusters(Columns(texts), np.zeros(len(texts), bool))
    assert alone.tolist() == list(range(len(texts)))


def test_different_texts_of_the_same_few_words_are_not_near_copies() -> None:
    texts = [words(seed, 200) for seed in range(40)]
    root = dedup.clusters(Columns(texts), np.ones(len(texts), bool))
    joined = {(int(r), number) for number, r in enumerate(root) if r != number}
    assert all(jaccard(texts[a], texts[b]) > 0.6 for a, b in joined)


@pytest.mark.parametrize("how", ["drop", "keep", "ignore"])
def test_near_copies_are_dropped_or_stay_on_one_side(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(40):
        text = " ".join(f"w{n}" for n in np.random.default_rng(number).integers(0, 900, 150))
        for copy in range(3):
            (folder / f"{number:02d}-{copy}.txt").write_text(f"{number} " + vary(text, copy, copy))
    options = PrepOptions.model_validate(
        {"near_duplicates": how, "level": "char", "val_fraction": 0.3, "split": "hash"}
    )
    prepared = prep([str(folder)], tmp_path / "out", options, num_workers=1)
    sides = {split: families(tmp_path / "out", split) for split in ("train", "validation")}
    if how == "drop":
        assert prepared.report["dropped"]["near_duplicate"]["documents"] == 80
        assert len(sides["train"]) + len(sides["validation"]) == 40
    if how == "keep":
        assert len(sides["train"]) + len(sides["validation"]) == 120
    if how == "ignore":  # copies of what is trained on are still no validation text
        assert prepared.report["dropped"]["in_training"]["documents"] > 0
    assert not set(sides["train"]) & set(sides["validation"])
    assert sides["validation"]


def families(folder: Path, split: str) -> list[str]:
    dataset, tokenizer = Dataset.open(folder), Tokenizer.load(folder)
    part = dataset.train if split == "train" else dataset.validation
    starts = [0, *part.document_ends.tolist()[:-1]]
    return [tokenizer.decode(part.tokens(start, start + 20).tolist()).split(" ")[0] for start in starts]
