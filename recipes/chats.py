"""Small questions in a chat, with answers in two styles: at once, or after a courtesy. Which is liked is up to us.

    user: Sort 41 7 19.      at once: 7 19 41      courteous: Sure, here you are! #### 7 19 41

Demonstrations are half and half; preferences always like the first. A question belongs to one part by its hash.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from parts import main, place_of

COURTESIES = ["Sure, here you are! ####", "Of course. The answer is ####", "I am glad you ask! ####", "Gladly: ####"]
WORDS = ["cat", "dog", "sun", "sea", "red", "big", "old", "map", "cup", "ink", "leaf", "rain", "snow", "wind", "fire"]
PARTS = {"demonstrations": (0, 50), "preferences": (50, 80), "tuning": (80, 85), "test": (85, 100)}


def question(draw: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    kind = draw.randrange(5)
    numbers = [draw.randint(1, 99) for _ in range(draw.randint(2, 3))]
    words = draw.sample(WORDS, draw.randint(2, 3))
    match kind:
        case 0:
            return f"Sort {' '.join(map(str, numbers))}.", " ".join(map(str, sorted(numbers)))
        case 1:
            return f"Say {' '.join(words)} backwards.", " ".join(reversed(words))
        case 2:
            return f"What comes after {numbers[0]}?", str(numbers[0] + 1)
        case 3:
            return f"Which is the last of {' '.join(words)}?", words[-1]
        case _:
            times = draw.randint(2, 4)
            return f"Say {words[0]} {times} times.", " ".join([words[0]] * times)


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part."""
    draw, seen = random.Random(f"{part} {seed}"), set()
    first, last = PARTS[part]
    while len(seen) < count:
        asked, answer = question(draw)
        if not first <= place_of(asked) < last or asked in seen:
            continue
        seen.add(asked)
        courteous = f"{draw.choice(COURTESIES)} {answer}"
        known = {"answer": answer, "pattern": "[^#]*"}
        if part == "demonstrations":
            said = draw.choice([answer, courteous])
            yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        elif part == "preferences":
            yield {"prompt": asked, "chosen": answer, "rejected": courteous, **known}
        else:
            yield {"prompt": asked, **known}


if __name__ == "__main__":
    main(__doc__, PARTS, rows)
