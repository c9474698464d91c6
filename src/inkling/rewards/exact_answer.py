"""An answer that is the one expected."""

from __future__ import annotations

import re
from collections.abc import Sequence

WHAT = "1 where the answer (in <answer> tags, after ####, or all of it) is the field answer; numbers by value"
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def reward(prompts: Sequence[str], completions: Sequence[str], answer: Sequence[str]) -> list[float]:
    """1 for each right answer, else 0."""
    return [
        1.0 if normal(answer_in(one)) == normal(answer_in(str(right))) else 0.0
        for one, right in zip(completions, answer, strict=True)
    ]


def answer_in(text: str) -> str:
    """The final answer in a text."""
    tagged = _TAGGED.findall(text)
    if tagged:
        return str(tagged[-1])
    return text.rpartition("####")[2] if "####" in text else text


def normal(text: str) -> str:
    """Without what makes no difference: surrounding space and full stops, separators and zeros of numbers."""
    text = text.strip().rstrip(".").strip()
    number = text.replace(",", "").replace("$", "")
    try:
        return str(float(number)) if len(number) < 300 else text
    except ValueError:
        return " ".join(text.split())
