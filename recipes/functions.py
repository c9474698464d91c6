"""Functions of a list of numbers, asked for in a sentence: to be written as one line of Python, graded by tests.

    # Return the sum of the squares of the multiples of 3 in xs.
    def f(xs):
        return sum([x * x for x in xs if x % 3 == 0])

What is done, to what, and for which numbers: such a triple, of some ten thousand, belongs to the demonstrations, the
prompts or the test by its hash, so that no test asks for what was shown, though each of its words was.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from parts import main, place_of

DONE = {
    "the sum of": "sum([{each}])",
    "how many there are of": "len([{each}])",
    "the largest of": "max([{each}], default=0)",
    "the smallest of": "min([{each}], default=0)",
    "the list of": "[{each}]",
    "the sorted list of": "sorted([{each}])",
    "the set of": "set([{each}])",
    "the reversed list of": "[{each}][::-1]",
}
TO = {
    "": "x",
    "the squares of ": "x * x",
    "the negatives of ": "-x",
    "the absolute values of ": "abs(x)",
    **{f"{n} times ": f"{n} * x" for n in range(2, 10)},
    **{f"{n} more than ": f"x + {n}" for n in range(2, 10)},
    **{f"{n} less than ": f"x - {n}" for n in range(2, 10)},
}
WHICH = {
    "the numbers": "",
    "the even numbers": " if x % 2 == 0",
    "the odd numbers": " if x % 2 == 1",
    "the positive numbers": " if x > 0",
    "the negative numbers": " if x < 0",
    **{f"the numbers above {n}": f" if x > {n}" for n in range(2, 13)},
    **{f"the numbers below {n}": f" if x < {n}" for n in range(2, 13)},
    **{f"the multiples of {n}": f" if x % {n} == 0" for n in range(3, 13)},
}
LISTS: list[list[int]] = [
    [], [4], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [-3, 12, -7, 0, 9, 15], [20, 11, -20, 6, 3, 3, 14], [7, -1]
]  # fmt: skip
PARTS = {"demonstrations": (0, 40), "prompts": (40, 80), "tuning": (80, 88), "test": (88, 100)}


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part, different ones, at most as many as there are."""
    first, last = PARTS[part]
    triples = [one for one in itertools.product(DONE, TO, WHICH) if first <= place_of(one) < last]
    random.Random(f"{part} {seed}").shuffle(triples)
    for done, to, which in triples[:count]:
        body = DONE[done].format(each=f"{TO[to]} for x in xs{WHICH[which]}")
        function = eval(f"lambda xs: {body}")
        tests = [f"assert f({one}) == {function(one)!r}" for one in LISTS]
        row: dict[str, object] = {"prompt": f"# Return {done} {to}{which} in xs.\ndef f(xs):\n    return"}
        if part == "demonstrations":
            row["completion"] = f" {body}\n"
        yield {**row, "program": "def f(xs):\n    return {answer}", "names": ["f"], "tests": tests}


if __name__ == "__main__":
    main(__doc__, PARTS, rows)
