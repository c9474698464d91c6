"""Mixtures, shares and shuffles: every window once, shares exact, the same whoever reads."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import words
from inkling.cli import main
from inkling.data import loader
from inkling.data.loader import MIXED_WINDOWS, PackedWindows, quotas
from inkling.data.mixture import mix
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.shards import Dataset, ShardInfo, TokenSplit, write_shard
from inkling.data.shuffle import permute
from inkling.errors import DataError

EOT = 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))
    some = np.arange(size)[::7]
    assert np.array_equal(permute(some, size, key), permute(np.arange(size), size, key)[::7])


def test_permute_looks_random_and_depends_on_its_key() -> None:
    places = permute(np.arange(10_000), 10_000, 1)
    assert abs(np.corrcoef(places, np.arange(10_000))[0, 1]) < 0.03
    assert np.mean(np.abs(np.diff(places)) < 100) < 0.03
    assert np.mean(places == permute(np.arange(10_000), 10_000, 2)) < 0.01


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6), st.integers(10, 5000))
def test_quotas_are_within_one_of_the_shares(weights: list[float], total: int) -> None:
    counts = quotas(weights, total)
    assert counts.sum() == total
    wanted = np.array(weights) / sum(weights) * total
    assert (counts >= 1).all()
    assert (np.abs(counts - wanted) < 1 + len(weights)).all()


def split_of(folder: Path, lengths: list[int], first: int) -> TokenSplit:
    """Documents whose tokens are all different numbers from `first` on."""
    documents = []
    for length in lengths:
        documents.append([*range(first, first + length - 1), EOT])
        first += length
    folder.mkdir(exist_ok=True)
    tokens = np.concatenate(documents).astype("<u4")
    info: ShardInfo = write_shard(folder, "00000", tokens, np.cumsum(lengths), 0)
    return TokenSplit(folder, [info], np.dtype("<u4"))


def mixed(tmp_path: Path, shares: tuple[float, float] = (0.75, 0.25), **more: int) -> PackedWindows:
    one, two = split_of(tmp_path / "one", [40, 30, 50], 1), split_of(tmp_path / "two", [25, 60, 15], 10_000)
    options = {"context": 8, "batch_size": 4, "seed": 3, "eot_id": EOT, **more}
    return PackedWindows([(one, shares[0]), (two, shares[1])], **options)


def test_shares_are_exact_and_each_source_has_its_own_epochs(tmp_path: Path) -> None:
    windows = mixed(tmp_path)
    rows = np.concatenate([windows.batch(step).targets for step in range(2 * MIXED_WINDOWS // 4)])
    from_two = (rows >= 10_000).any(axis=1) & ~((rows > 0) & (rows < 10_000)).any(axis=1)
    assert from_two[:MIXED_WINDOWS].sum() == MIXED_WINDOWS // 4
    assert from_two[MIXED_WINDOWS:].sum() == MIXED_WINDOWS // 4
    assert not np.array_equal(from_two[:MIXED_WINDOWS], from_two[MIXED_WINDOWS:])
    for chosen, per_epoch in ((rows[~from_two], 120 // 8), (rows[from_two], 100 // 8)):
        for start in range(0, 3 * per_epoch, per_epoch):
            counts = Counter(chosen[start : start + per_epoch].ravel().tolist())
            counts.pop(EOT)
            assert set(counts.values()) == {1}
    assert windows.passes(MIXED_WINDOWS // 4) == pytest.approx([MIXED_WINDOWS * 0.75 / 15, MIXED_WINDOWS * 0.25 / 12])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_ranks_together_read_the_batch(tmp_path: Path, world_size: int) -> None:
    windows = mixed(tmp_path)
    for step in (0, 5, 1025):
        whole = windows.batch(step).input_ids
        parts = [mixed(tmp_path).batch(step, rank=r, world_size=world_size).input_ids for r in range(world_size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_a_stride_makes_windows_overlap(tmp_path: Path) -> None:
    split = split_of(tmp_path / "one", [96], 1)
    windows = PackedWindows([(split, 1.0)], context=8, batch_size=1, seed=0, eot_id=EOT, stride=2)
    assert windows.windows_per_epoch == 48
    counts = Counter(np.concatenate([windows.batch(step).targets for step in range(48)]).ravel().tolist())
    assert set(counts.values()) == {4}


def test_very_many_documents_are_shuffled_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_SHUFFLED", 10)
    split = split_of(tmp_path / "one", [5] * 64, 1)
    windows = PackedWindows([(split, 1.0)], context=5, batch_size=1, seed=0, eot_id=EOT)
    for epoch in range(2):
        rows = [windows.batch(step).targets for step in range(64 * epoch, 64 * (epoch + 1))]
        counts = Counter(np.concatenate(rows).ravel().tolist())
        assert counts.pop(EOT) == 64
        assert set(counts.values()) == {1}
        assert len(counts) == 64 * 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("mix")
    for name, first, count in (("one", 0, 40), ("two", 500, 80)):
        (root / name).mkdir()
        for number in range(count):
            (root / name / f"{number}.txt").write_text(words(first + number, 120))
    options = PrepOptions(level="char", val_fraction=0.2)
    prep([str(root / "one")], root / "data-one", options, num_workers=1)
    prep([str(root / "two")], root / "data-two", PrepOptions(tokenizer=str(root / "data-one"), val_fraction=0.2))
    return root / "data-one", root / "data-two"


def test_a_mixture_is_opened_like_a_data_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = (Dataset.open(folder) for folder in folders)
    mix([f"{folders[0]}=0.3", str(folders[1])], tmp_path / "both")
    both = Dataset.open(tmp_path / "both")
    both.check_checksums()
    assert [part.share for part in both.parts] == pytest.approx([0.3, 0.7])
    assert both.train.num_tokens == one.train.num_tokens + two.train.num_tokens
    assert both.validation.num_bytes == one.validation.num_bytes + two.validation.num_bytes
    joined = both.train.tokens(one.train.num_tokens - 5, one.train.num_tokens + 5)
    assert joined.tolist() == [
        *one.train.tokens(one.train.num_tokens - 5, one.train.num_tokens).tolist(),
        *two.train.tokens(0, 5).tolist(),
    ]


def test_folders_of_one_name_are_told_apart(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = [shutil.copytree(folder, tmp_path / who / "data") for folder, who in zip(folders, "ab", strict=True)]
    assert main(["mix", *map(str, copies), "-o", str(tmp_path / "both")]) == 0
    said = capsys.readouterr().out
    names = [part.name for part in Dataset.open(tmp_path / "both").parts]
    assert names == ["a/data", "b/data"]
    assert all(f"  {name}: " in said for name in names)


def test_shares_follow_from_tokens_and_times(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tokens = [Dataset.open(folder).train.num_tokens for folder in folders]
    mix([f"{folders[0]}=2x", str(folders[1])], tmp_path / "both")
    shares = [part.share for part in Dataset.open(tmp_path / "both").parts]
    assert shares == pytest.approx(
        [2 * tokens[0] / (2 * tokens[0] + tokens[1]), tokens[1] / (2 * tokens[0] + tokens[1])]
    )


def test_mixtures_that_make_no_sense(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = map(str, folders)
    for texts, why in [
        ([one], "at least two"),
        ([f"{one}=0.5", f"{two}=0.4"], "sum to 0.9 instead of 1"),
        ([one, two, f"{one}=2x"], "is named twice"),
        ([f"{one}=0.6", f"{two}=0.4", two], "leaves nothing for the folders without one"),
        ([f"{one}=2", two], "say a share between 0 and 1"),
        ([f"{one}=some", two], "say a share between 0 and 1"),
        ([one, str(tmp_path / "none")], "there is no data folder"),
    ]:
        with pytest.raises(DataError, match=why):
            mix(texts, tmp_path / "both")
    assert not (tmp_path / "both").exists()
    (tmp_path / "text.txt").write_text("Ж" + words(7, 3000))
    prep([str(tmp_path / "text.txt")], tmp_path / "other", PrepOptions(level="char"), num_workers=1)
    with pytest.raises(DataError, match=r"has another tokenizer than .* Prepare it again with --tokenizer"):
        mix([one, str(tmp_path / "other")], tmp_path / "both")


def test_a_folder_that_changes_after_mixing_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders[1], copy)
    mix([str(folders[0]), str(copy)], tmp_path / "both")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "notes": ["changed"]}))
    with pytest.raises(DataError, match="has changed since"):
        Dataset.open(tmp_path / "both")


def test_training_and_evaluating_on_a_mixture(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mix", f"{folders[0]}=0.5", f"{folders[1]}=0.5", "-o", "both"]) == 0
    arguments = ["train", "both", "-o", "run", "--steps", "3", "--context", "16", "--batch-size", "2", "--stride", "8"]
    arguments += [
        "--machine.compile",
        "no",
        "--machine.precision",
        "fp32",
        "--machine.threads",
        "1",
        "--machine.attention",
        "sdpa",
        "--size",
        "0.8m",
    ]
    assert main(arguments) == 0
    assert "mixture: data-one 50.0%" in capsys.readouterr().err
    assert main(["eval", "run", "--no-floors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sources = found["sources"].values()
    assert sum(source["num_bytes"] for source in sources) == found["num_bytes"]
    whole = found["bits_per_byte"] * found["num_bytes"]
    assert sum(s["bits_per_byte"] * s["num_bytes"] for s in sources) == pytest.approx(whole, rel=0.02)
