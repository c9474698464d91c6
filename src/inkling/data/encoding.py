"""Portions of text to token shards, one process at a time or several."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from inkling import files
from inkling.data.plan import DROPPED, TRAIN
from inkling.data.portions import Portion
from inkling.data.shards import ShardInfo, SplitName, shard_name, token_dtype, write_shard
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.encoders import Encoder, by_name

_PORTIONS_PER_ENCODER = 16
"""Encoders remember every word that they saw; a new one forgets them."""


@dataclass(frozen=True)
class EncodingJob:
    """One portion to encode.

    Attributes:
        number: Of the portion; its shards have the same.
        decisions: (documents) what becomes of each.
        cut: (document, characters) where the split goes through one of them.
        encoder: Name of the library that encodes.
        folders: Where the shards of each split go.
        note: File that says what was made; when it exists, the work is done.
    """

    portion: Portion
    number: int
    decisions: np.ndarray
    cut: tuple[int, int] | None
    tokenizer: Path
    encoder: str
    folders: dict[SplitName, Path]
    note: Path


def encode(job: EncodingJob) -> dict[SplitName, ShardInfo]:
    """Write the shards of a portion: one for each split that it has text for."""
    if job.note.exists():  # written by a run that was killed later
        content: dict[SplitName, Any] = json.loads(job.note.read_text())
        return {split: ShardInfo(**info) for split, info in content.items()}
    encoder, tokenizer = _encoder(job.encoder, job.tokenizer, job.number // _PORTIONS_PER_ENCODER)
    texts: dict[SplitName, list[str]] = {"train": [], "validation": []}
    wanted = np.flatnonzero((job.decisions != DROPPED) & ~job.portion.index["is_row"])
    for number, text in zip(wanted.tolist(), job.portion.texts(wanted), strict=True):
        if job.cut is not None and job.cut[0] == number:
            texts["train"].append(text[: job.cut[1]])
            texts["validation"].append(text[job.cut[1] :])
        else:
            texts["train" if job.decisions[number] == TRAIN else "validation"].append(text)
    made = {
        split: _write(job.folders[split], shard_name(split, job.number), some, encoder, tokenizer)
        for split, some in texts.items()
        if some
    }
    files.write_json(job.note, {split: asdict(info) for split, info in made.items()})
    return made


def _write(folder: Path, name: str, texts: list[str], encoder: Encoder, tokenizer: Tokenizer) -> ShardInfo:
    ids, lengths = encoder.encode(texts)
    ends = np.cumsum(lengths + 1)
    tokens = np.full(len(ids) + len(texts), tokenizer.eot_id, token_dtype(tokenizer.vocab_size))
    is_text = np.ones(len(tokens), bool)
    is_text[ends - 1] = False
    tokens[is_text] = ids
    return write_shard(folder, name, tokens, ends, sum(len(text.encode()) for text in texts))


@lru_cache(maxsize=1)
def _encoder(name: str, folder: Path, generation: int) -> tuple[Encoder, Tokenizer]:
    tokenizer = Tokenizer.load(folder)
    return by_name(name, tokenizer), tokenizer
