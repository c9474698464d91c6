"""Sums and differences of three digits, such as 7-2+9=14: what to read, what to imitate, what to be asked.

The base reads lists of numbers, and no sums. A sum belongs to the demonstrations, the prompts or the test by its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

PARTS = {"base": (0, 0), "demonstrations": (0, 30), "prompts": (30, 80), "tuning": (80, 90), "test": (90, 100)}


def place_of(key: str) -> int:
    """0 to 99, always the same."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % 100


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, str]]:
    """Rows of one part."""
    draw, seen = random.Random(f"{part} {seed}"), set()
    first, last = PARTS[part]
    while count:
        digits, signs = [draw.randint(0, 9) for _ in range(3)], [draw.choice("+-") for _ in range(2)]
        if part == "base":
            start, step = draw.randint(0, 200), draw.choice([1, 1, 2, 5, 10, -1])
            yield {
                "text": ", ".join(str(start + step * n) for n in range(draw.randint(3, 12)))
                + draw.choice([".", "=", "+"])
            }
            count -= 1
            continue
        key = f"{digits[0]}{signs[0]}{digits[1]}{signs[1]}{digits[2]}"
        if first <= place_of(key) < last and key not in seen:
            seen.add(key)
            answer = str(digits[0] + int(signs[0] + str(digits[1])) + int(signs[1] + str(digits[2])))
            row = {"prompt": f"{key}=", "answer": answer}
            yield {**row, "completion": answer} if part == "demonstrations" else row
            count -= 1


def main() -> None:
    """Write one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    with given.out.open("w", encoding="utf-8") as file:
        for row in rows(given.part, given.seed, given.count):
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
