"""Validation text in the training text: shares counted one by one, and what `prep --check` refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import words
from inkling.data import leakage
from inkling.data.check import check
from inkling.data.decontaminate import Benchmark
from inkling.data.documents import Document
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.data.shards import TokenSplit, write_shard
from inkling.errors import DataError, TokenizerError


def split_of(folder: Path, name: str, documents: list[list[int]]) -> TokenSplit:
    half = len(documents) // 2
    infos = []
    for i, some in enumerate((documents[:half], documents[half:])):
        tokens = np.array([token for document in some for token in (*document, 0)], "<u2")
        ends = np.cumsum([len(document) + 1 for document in some], dtype=np.int64)
        infos.append(write_shard(folder, f"{name}{i}", tokens, ends, 1))
    return TokenSplit(folder, infos, np.dtype("<u2"))


def counted(train: list[list[int]], validation: list[list[int]]) -> list[float]:
    def runs(document: list[int]) -> list[tuple[int, ...]]:
        ids = (*document, 0)
        return [ids[i : i + 32] for i in range(max(1, len(ids) - 31))]

    known = {run for document in train for run in runs(document)}
    return [sum(run in known for run in runs(document)) / len(runs(document)) for document in validation]


@pytest.mark.parametrize("chunk", [leakage._CHUNK_TOKENS, 50])
def test_shares_are_those_counted_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(leakage, "_CHUNK_TOKENS", chunk)
    random = np.random.default_rng(0)
    train = [random.integers(1, 9, size).tolist() for size in (5, 31, 32, 33, 100, 300, 1, 60)]
    validation = [
        train[0],
        train[5][10:200],
        random.integers(1, 9, 100).tolist(),
        [*train[4], *random.integers(1, 9, 100).tolist()],
        [1],
        train[2],
        train[6],
        train[1][:30],
    ]
    shares = leakage.leaked_shares(split_of(tmp_path, "t", train), split_of(tmp_path, "v", validation))
    assert shares.tolist() == pytest.approx(counted(train, validation))
    assert {0.0, 1.0} < set(shares.tolist())


def test_of_many_runs_a_sample_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    train = random.integers(1, 60_000, 20_000).tolist()
    validation = [train[5000:9000] + random.integers(1, 60_000, 4000).tolist()] * 2
    monkeypatch.setattr(leakage, "_MAX_RUNS", 2000)
    shares = leakage.leaked_shares(split_of(tmp_path, "t", [train, [1]]), split_of(tmp_path, "v", validation))
    assert shares.tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_validation_documents_that_are_parts_of_training_documents_are_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    texts = {
        number: " ".join(f"w{n}" for n in np.random.default_rng(number).integers(0, 900, 300)) for number in range(30)
    }
    for number, text in texts.items():
        (folder / f"{number}.txt").write_text(text)
        (folder / f"{number}-part.txt").write_text(text[200:700])
    options = PrepOptions(level="char", val_fraction=0.3, split="hash")
    prepared = prep([str(folder)], tmp_path / "out", options, num_workers=1)
    assert prepared.report["dropped"]["in_training"]["documents"] > 0
    kept = prepared.manifest["splits"]
    assert kept["train"]["num_documents"] + kept["validation"]["num_documents"] == prepared.report["documents_kept"]
    assert kept["train"]["num_bytes"] + kept["validation"]["num_bytes"] == prepared.report["bytes_kept"]
    found = check(tmp_path / "out")
    assert found["share_of_validation_runs_in_training"] < leakage.LEAKED_SHARE


def test_a_repeated_text_cut_at_the_end_is_said_and_refused_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(words(1, 300) * 8)
    options = PrepOptions(level="char", split="tail", clean="none")
    prepared = prep([str(tmp_path / "a.txt")], tmp_path / "out", options, num_workers=1)
    assert any("stands in the training text" in note for note in prepared.manifest["notes"])
    with pytest.raises(DataError, match=r"1 of 1 validation documents .* stand in its training text"):
        check(tmp_path / "out")


def alter_tokens(folder: Path, change: Callable[[np.ndarray], None], name: str = "00000") -> None:
    """Change tokens of a shard and bring its checksum up to date."""
    path = folder / f"{name}.bin"
    tokens = np.frombuffer(path.read_bytes(), "<u2").copy()
    change(tokens)
    path.write_bytes(tokens.tobytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = next(s for s in manifest["splits"]["train"]["shards"] if s["name"] == name)
    shard["sha256"] = hashlib.sha256(tokens.tobytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_check_passes_what_prep_made_and_names_what_was_altered(data_folder: Path, tmp_path: Path) -> None:
    found = check(data_folder)
    assert found["documents"]["train"] + found["documents"]["validation"] == 60

    def broken(number: int) -> Path:
        return Path(shutil.copytree(data_folder, tmp_path / str(number)))

    folder = broken(1)
    alter_tokens(folder, lambda tokens: tokens.__setitem__(5, 60_000))
    with pytest.raises(DataError, match="token 60000 is not in the vocabulary"):
        check(folder)
    folder = broken(2)
    alter_tokens(folder, lambda tokens: tokens.__setitem__(5, 0))
    with pytest.raises(DataError, match="end-of-text token stands inside a document"):
        check(folder)
    folder = broken(3)
    ends = np.frombuffer((folder / "00000.idx").read_bytes(), "<u8").copy()
    ends[[0, 1]] = ends[[1, 0]]
    (folder / "00000.idx").write_bytes(ends.tobytes())
    with pytest.raises(DataError, match="document ends do not ascend"):
        check(folder)
    folder = broken(4)
    ends[[0, 1]] = ends[[1, 0]]
    ends[0] -= 1
    (folder / "00000.idx").write_bytes(ends.tobytes())
    with pytest.raises(DataError, match="stands inside a document"):
        check(folder)
    folder = broken(5)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["num_bytes"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"its tokens spell [\d,]+ bytes instead of"):
        check(folder)
    folder = broken(6)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError):
        check(folder)


def test_text_in_common_with_a_benchmark_is_found_and_dropped(tmp_path: Path) -> None:
    problem = " ".join(f"p{n}" for n in range(40))
    benchmark = Benchmark([Document("short one", "b:1"), Document("", "b:2", {"test": [problem]})])
    assert benchmark.find("a text of its own, and a long one: " + words(1, 200)) is None
    assert benchmark.find("p1 p2 p3 p4 p5 p6 p7 p8 p9 p10 p11 p12 other") is None
    assert benchmark.find("see P1, p2 p3: p4 p5 p6 (p7) p8 p9 p10 p11 p12 p13!") == "1 runs of 13 words as in b:2"
    assert benchmark.find("Short one.") == "1 runs of 13 words as in b:1"
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(words(number, 60))
    (folder / "copy.txt").write_text(words(99, 60) + problem)
    (tmp_path / "bench.jsonl").write_text(json.dumps({"text": problem}) + "\n")
    options = PrepOptions(level="char", val_fraction=0.2, keep_out=[str(tmp_path / "bench.jsonl")])
    report = prep([str(folder)], tmp_path / "out", options, num_workers=1).report
    assert report["dropped"]["contaminated"]["documents"] == 1
    assert "copy.txt" in report["dropped"]["contaminated"]["examples"][0]
    assert "bench.jsonl:1" in report["dropped"]["contaminated"]["examples"][0]
    (tmp_path / "empty.txt").write_text(" ")
    with pytest.raises(DataError, match="there is no text to keep out"):
        prep([str(folder)], tmp_path / "out2", PrepOptions(keep_out=[str(tmp_path / "empty.txt")]))
