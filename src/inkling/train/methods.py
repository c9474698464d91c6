"""What each method of tuning makes of rows: items to learn from, and the sequences in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from inkling.data.chats import AnyRow, Judged, as_conversations, as_judged, as_pairs, as_question
from inkling.data.examples import distinct_prompts
from inkling.errors import DataError
from inkling.train.encode import Encoder, encoded
from inkling.train.reward_model import read_at_the_end
from inkling.train.rollouts import Prompt, RolloutSettings
from inkling.train.sequences import Tokens
from inkling.train.tune_settings import REINFORCE


def items_of(method: str, rows: Sequence[AnyRow], encoder: Encoder, bad: list[str] | None) -> list[Any]:
    """The items that a method, not one of `REINFORCE`, learns from.

    Conversations are `Tokens`, pairs are two of them, and feedback is such a pair (an answer, and the answer to another
    prompt in its place) with whether the answer was found good.

    Args:
        bad: Takes the reasons of rows that cannot be used; None: the first one is an error.
    """
    if method in ("sft", "distill"):
        return encoded(rows, lambda row: map(encoder.conversation, as_conversations(row)), bad)
    if method == "kto":
        return _feedback(rows, encoder, bad)
    pairs = encoded(rows, lambda row: map(encoder.answers, as_pairs(row)), bad)
    if method == "reward":
        return [[read_at_the_end(one, encoder.tokenizer.eot_id) for one in pair] for pair in pairs]
    return pairs


def _feedback(rows: Sequence[AnyRow], encoder: Encoder, bad: list[str] | None) -> list[Any]:
    judged = encoded(rows, as_judged, bad)
    half = len(judged) // 2  # far enough that an answer to another prompt stands there
    others = iter([*judged[half:], *judged[:half]])

    def both(row: AnyRow) -> Iterable[tuple[list[Tokens], bool]]:
        assert isinstance(row, Judged)
        yield [encoder.judged(row), encoder.mismatched(row, next(others))], row.is_good

    return encoded(judged, both, bad)


def prompts_of(
    rows: Sequence[AnyRow],
    encoder: Encoder,
    bad: list[str] | None,
    max_tokens: int,
    check_fn: Callable[[Sequence[Prompt], Sequence[str]], None],
) -> list[Prompt]:
    """What is asked in the rows, each once, with room for an answer.

    Args:
        check_fn: Looks whether rewards can be used for prompts from these places.
    """
    places: list[str] = []

    def prompt(row: AnyRow) -> Iterable[Prompt]:
        question = as_question(row)
        if any(message.get("pictures") for message in question.prompt):
            raise DataError(f"{question.place}: answers about pictures are not learnt by rewards yet")
        ids = encoder.prompt(question, max_tokens)
        places.append(question.place)
        yield Prompt(ids, question.prompt[-1]["content"], question.fields)

    found = encoded(distinct_prompts(rows), prompt, bad)
    check_fn(found, places)
    return found


def sequences_of(method: str, items: Sequence[Any], rollouts: RolloutSettings) -> list[Sequence[Tokens]]:
    """The sequences of each item; of prompts, with the longest answers that they can get, each another one."""
    if method in ("sft", "distill"):
        return [[one] for one in items]
    if method == "kto":
        return [pair for pair, _ in items]
    if method in REINFORCE:
        size, learnt = rollouts.max_tokens, [True] * rollouts.max_tokens
        answers = [[number % 2] * size for number in range(rollouts.group_size)]
        return [
            [Tokens([*one.ids, *answer], [*[False] * len(one.ids), *learnt]) for answer in answers] for one in items
        ]
    return list(items)
