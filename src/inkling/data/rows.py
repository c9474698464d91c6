"""Rows of chats and preferences: they are cleaned, deduplicated and split like text, and pass through whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inkling import files
from inkling.data.plan import DROPPED, TRAIN, Plan
from inkling.data.portions import Portions
from inkling.data.shards import SplitName

ROWS_FILES: dict[SplitName, str] = {"train": "rows.jsonl", "validation": "val-rows.jsonl"}


def write_rows(portions: Portions, plan: Plan, folder: Path) -> dict[str, Any]:
    """Write the rows of each split, as they were read, as JSON Lines; nothing when there are none.

    Returns what the manifest says of them: for each split the file, the number of rows, and the file's SHA-256.
    """
    if not any(portion.index["is_row"].any() for portion in portions.portions):
        return {}
    made: dict[str, Any] = {}
    for split, name in ROWS_FILES.items():
        digest, count = hashlib.sha256(), 0

        def write(path: Path, split: SplitName = split, digest: Any = digest) -> None:
            nonlocal count
            with path.open("wb") as file:
                for line in _lines(portions, plan, split):
                    digest.update(line)
                    file.write(line)
                    count += 1

        files.write_file(folder / name, write)
        made[split] = {"file": name, "num_rows": count, "sha256": digest.hexdigest()}
    return made


def _lines(portions: Portions, plan: Plan, split: SplitName) -> Iterator[bytes]:
    for portion, start in zip(portions.portions, portions.starts.tolist(), strict=False):
        for number, row in portion.rows():
            decision = plan.decisions[start + number]
            if decision != DROPPED and (decision == TRAIN) == (split == "train"):
                yield (json.dumps(row, ensure_ascii=False) + "\n").encode()
