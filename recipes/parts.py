"""What the generators of tasks share: each example belongs to one part by its hash, and a part is written as rows."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Rows = Callable[[str, int, int], Iterator[dict[str, object]]]


def place_of(key: object) -> int:
    """0 to 99, always the same for the same example: a part is a range of these, so that no two share an example."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=4).digest()) % 100


def main(what: str | None, parts: Mapping[str, tuple[int, int]], rows: Rows) -> None:
    """Write one part as JSON Lines: PART --count N [--seed S] -o FILE.

    Args:
        what: Of the task, for the help.
        parts: Their names.
        rows: (part, seed, count) → its rows.
    """
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as file:
        for row in rows(given.part, given.seed, given.count):
            file.write(json.dumps(row) + "\n")
