"""Sums of two numbers of two digits, worked out column by column: what to read, to imitate, to be asked.

    47+86=   →   13 13 #### 133

The ones, the tens with what is carried, the sum. The base reads lists of numbers, and no sums. A sum belongs to the
demonstrations, the prompts or the test by its hash.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from parts import main, place_of

PARTS = {"base": (0, 0), "demonstrations": (0, 30), "prompts": (30, 80), "tuning": (80, 90), "test": (90, 100)}


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part; of the demonstrations, prompts and tests different ones, of 8,100 in all."""
    draw = random.Random(f"{part} {seed}")
    if part == "base":
        yield from ({"text": _list_of_numbers(draw)} for _ in range(count))
        return
    first, last = PARTS[part]
    sums = [(a, b) for a in range(10, 100) for b in range(10, 100) if first <= place_of((a, b)) < last]
    draw.shuffle(sums)
    for a, b in sums[:count]:
        row: dict[str, object] = {"prompt": f"{a}+{b}=", "answer": str(a + b)}
        ones = a % 10 + b % 10
        worked = f"{ones} {a // 10 + b // 10 + ones // 10} #### {a + b}"
        yield {**row, "completion": worked} if part == "demonstrations" else row


def _list_of_numbers(draw: random.Random) -> str:
    start, step = draw.randint(-30, 40), draw.randint(-9, 9)
    return ", ".join(str(start + step * n) for n in range(draw.randint(3, 8))) + draw.choice([*".=+-", " ####"])


if __name__ == "__main__":
    main(__doc__, PARTS, rows)
