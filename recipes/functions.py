"""Functions of a list of numbers, asked for in a sentence: to be written as one line of Python, graded by tests.

    # Return the sum of the squares of the even numbers in xs.
    def f(xs):
        return sum(x * x for x in xs if x % 2 == 0)

What is done, to what, and for which numbers: such a triple belongs to the demonstrations, the prompts or the test by
its hash, so that no test asks for what was shown, though each of its words was.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

DONE = {
    "the sum of": "sum({items})",
    "how many there are of": "len([{inner}])",
    "the largest of": "max([{inner}], default=0)",
    "the smallest of": "min([{inner}], default=0)",
    "the list of": "[{inner}]",
    "the sorted list of": "sorted([{inner}])",
    "the first of": "next(({inner}), 0)",
    "whether there are any of": "any(True for {each})",
}
TO = {
    "": "x",
    "the squares of ": "x * x",
    "the doubles of ": "2 * x",
    "the negatives of ": "-x",
    "the absolute values of ": "abs(x)",
    "the halves of ": "x // 2",
    "the successors of ": "x + 1",
    "the cubes of ": "x**3",
}
WHICH = {
    "the numbers": "",
    "the even numbers": " if x % 2 == 0",
    "the odd numbers": " if x % 2 == 1",
    "the positive numbers": " if x > 0",
    "the negative numbers": " if x < 0",
    "the numbers above ten": " if x > 10",
    "the multiples of three": " if x % 3 == 0",
    "the numbers below five": " if x < 5",
}
LISTS: list[list[int]] = [[], [4], [1, 2, 3, 4, 5, 6], [-3, 12, -7, 0, 9, 15], [20, 11, -20, 6, 3, 3], [7, -1]]
PARTS = {"demonstrations": (0, 40), "prompts": (40, 80), "tuning": (80, 88), "test": (88, 100)}


def code_of(done: str, to: str, which: str) -> str:
    """The body, in one line."""
    each = f"x in xs{WHICH[which]}"
    inner = f"{TO[to]} for {each}"
    return DONE[done].format(items=inner, inner=inner, each=each)


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part, different ones, at most as many as there are."""
    first, last = PARTS[part]
    triples = [
        triple
        for triple in itertools.product(DONE, TO, WHICH)
        if first <= int.from_bytes(hashlib.blake2b(repr(triple).encode(), digest_size=4).digest()) % 100 < last
    ]
    random.Random(f"{part} {seed}").shuffle(triples)
    for done, to, which in triples[:count]:
        body = code_of(done, to, which)
        function = eval(f"lambda xs: {body}")
        tests = [f"assert f({one}) == {function(one)!r}" for one in LISTS]
        row: dict[str, object] = {"prompt": f"# Return {done} {to}{which} in xs.\ndef f(xs):\n    return"}
        if part == "demonstrations":
            row["completion"] = f" {body}\n"
        yield {**row, "program": "def f(xs):\n    return {answer}", "names": ["f"], "tests": tests}


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
