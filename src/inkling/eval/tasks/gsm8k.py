"""GSM8K: grade-school word problems with a number as their answer (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from inkling.errors import DataError
from inkling.eval.tasks import Item, Options, Result, judged, read_lines

WHAT = "a word problem; the number after #### decides"
DATA = "gsm8k/test.jsonl"
RUNS_CODE = False
MAX_TOKENS = 256
STOP = ("\nQuestion:", "\n\n")
_SHOTS = 0
_ANSWER = re.compile(r"####\s*(-?[0-9][0-9,]*\.?[0-9]*)")


def read(options: Options) -> list[Item]:
    """The problems; examples come from the file `train.jsonl` beside them."""
    found = []
    for number, (place, row) in enumerate(read_lines(options, DATA, {"question": str, "answer": str})):
        if number_in(row["answer"]) is None:  # else an answer without a number would be right
            raise DataError(f"{place}: the answer has no number after ####")
        found.append(Item(f"gsm8k/{number}", row["question"], row))
    return found


def prompts(items: Sequence[Item], options: Options) -> list[str]:
    """Question and answer lines, after as many examples as are asked for."""
    shots = _SHOTS if options.shots is None else options.shots
    before = ""
    if shots:
        assert options.data is not None
        beside = Options(data=options.data.with_name("train.jsonl"), limit=shots)
        examples = read_lines(beside, "gsm8k/train.jsonl", {"question": str, "answer": str})
        before = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for _, row in examples)
    return [f"{before}Question: {item.prompt}\nAnswer:" for item in items]


def number_in(answer: str) -> str | None:
    """What stands after ####, without commas and a decimal point with nothing behind it."""
    found = _ANSWER.search(answer)
    return None if found is None else found.group(1).replace(",", "").rstrip(".")


def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
    """Compare the numbers."""
    return judged(items, answers, lambda item, answer: number_in(answer) == number_in(item.fields["answer"]))


def constants(items: Sequence[Item]) -> list[str]:
    """The most frequent answer."""
    counts = Counter(number_in(item.fields["answer"]) for item in items)
    return [f" #### {counts.most_common(1)[0][0]}"]


def references(items: Sequence[Item]) -> list[str]:
    """The worked answers."""
    return [item.fields["answer"] for item in items]
