"""Sums and differences of four digits, worked out step by step: what to read, what to imitate, what to be asked.

    7-2+9-4=   →   5 14 #### 10

The base reads lists of numbers, and no sums. A sum belongs to the demonstrations, the prompts or the test by its hash.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from parts import main, place_of

PARTS = {"base": (0, 0), "demonstrations": (0, 30), "prompts": (30, 80), "tuning": (80, 90), "test": (90, 100)}


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part; of the demonstrations, prompts and tests different ones, of 80,000 in all."""
    draw, seen = random.Random(f"{part} {seed}"), set()
    first, last = PARTS[part]
    if part == "base":
        yield from ({"text": _list_of_numbers(draw)} for _ in range(count))
        return
    while len(seen) < count:
        steps = [draw.choice("+-") + str(draw.randint(0, 9)) for _ in range(3)]
        start = draw.randint(0, 9)
        asked = f"{start}{''.join(steps)}"
        if not first <= place_of(asked) < last or asked in seen:
            continue
        seen.add(asked)
        totals = [start + sum(map(int, steps[:end])) for end in range(1, 4)]
        row: dict[str, object] = {"prompt": f"{asked}=", "answer": str(totals[-1])}
        worked = f"{totals[0]} {totals[1]} #### {totals[2]}"
        yield {**row, "completion": worked} if part == "demonstrations" else row


def _list_of_numbers(draw: random.Random) -> str:
    start, step = draw.randint(-30, 40), draw.randint(-9, 9)
    return ", ".join(str(start + step * n) for n in range(draw.randint(3, 8))) + draw.choice([*".=+-", " ####"])


if __name__ == "__main__":
    main(__doc__, PARTS, rows)
