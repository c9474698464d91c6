"""A task that is easy to grade: a chain of operations in words, to be written as one Python expression of x.

    times 3, minus 5, square:   →   ((x*3)-5)**2

Any expression that gives the same numbers is right. Everything is made from a seed: text of expressions under prompts
that say nothing (what a base model reads), demonstrations, and prompts with tests alone. A chain of operations and
numbers belongs to one of them by its hash, so that nothing that is evaluated was trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from parts import main, place_of

WORDS = {
    "plus": ["plus {n}", "add {n}", "increase by {n}"],
    "minus": ["minus {n}", "subtract {n}"],
    "times": ["times {n}", "multiply by {n}"],
    "square": ["square", "squared"],
    "negate": ["negate", "flip the sign"],
    "mod": ["mod {n}", "remainder by {n}"],
}
CODE = {
    "plus": "({x}+{n})",
    "minus": "({x}-{n})",
    "times": "({x}*{n})",
    "square": "{x}**2",
    "negate": "(-{x})",
    "mod": "({x}%{n})",
}
LENGTH = 3
"""Operations of a chain."""
INPUTS = (-7, -2, 0, 3, 11)
PARTS = {"base": (0, 25), "demonstrations": (25, 50), "prompts": (50, 85), "tuning": (85, 90), "test": (90, 100)}
"""The share of all chains, in hundredths, that each part has for itself."""

Chain = tuple[tuple[str, int], ...]


def chains(part: str, seed: int) -> Iterator[Chain]:
    """Different chains of one part, without end."""
    draw, seen = random.Random(f"{part} {seed}"), set()
    first, last = PARTS[part]
    while True:
        chain = tuple((draw.choice(list(CODE)), draw.randint(2, 9)) for _ in range(LENGTH))
        key = tuple((name, 0 if name in ("square", "negate") else number) for name, number in chain)
        if first <= place_of(key) < last and key not in seen:
            seen.add(key)
            yield key


def prompt_of(chain: Chain, draw: random.Random) -> str:
    """The chain in words, one wording of several for each operation."""
    return ", ".join(draw.choice(WORDS[name]).format(n=number) for name, number in chain) + ":"


def code_of(chain: Chain) -> str:
    """The chain as an expression."""
    code = "x"
    for name, number in chain:
        code = CODE[name].format(x=code, n=number)
    return code[1:-1] if code.startswith("(") and code.endswith(")") and _is_one_bracket(code) else code


def _is_one_bracket(code: str) -> bool:
    depth = 0
    for place, letter in enumerate(code):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place == len(code) - 1
    return False


def tests_of(chain: Chain) -> list[str]:
    """What an answer must compute."""
    function = eval(f"lambda x: {code_of(chain)}")
    return [f"assert f({x}) == {function(x)}" for x in INPUTS]


def rows(part: str, seed: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of one part: base as text, demonstrations with their answers, the others with tests alone."""
    draw = random.Random(f"words of {part} {seed}")
    source = chains(part, seed)
    for _ in range(count):
        chain = next(source)
        if part == "base":
            letters = "".join(draw.choice("abcdefghijklmnopqrstuvwxyz ,") for _ in range(draw.randint(8, 40)))
            yield {"text": f"{letters.strip() or 'a'}: {code_of(chain)}"}
            continue
        row: dict[str, object] = {"prompt": f"{prompt_of(chain, draw)} "}
        if part == "demonstrations":
            row["completion"] = code_of(chain)
        row |= {"program": "def f(x):\n    return {answer}", "names": ["f"], "tests": tests_of(chain)}
        yield row


if __name__ == "__main__":
    main(__doc__, PARTS, rows)
