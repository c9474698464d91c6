"""Character merges, applied by Hugging Face's BPE and checked against the definition."""

from __future__ import annotations

import random

from tokenizers import models

from inkling.tokenizer.char import character_merges
from inkling.tokenizer.stand_ins import CHARACTER_OF_BYTE

# One character for each length in UTF-8, and several that share their first one, two or three bytes.
CHARACTERS = "aZ \n\x00éèßжд東京が😀😁🀄\u200d\U0010ffff"


def spell(token: bytes) -> str:
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)


def test_the_merges_build_each_character_and_never_cross_one() -> None:
    chosen = random.Random(1)
    text = "".join(chosen.choices(CHARACTERS, k=400))
    merges = [(spell(left), spell(right)) for left, right in character_merges([text[:150], text[150:]])]
    tokens = [*CHARACTER_OF_BYTE.values(), *(left + right for left, right in merges)]
    model = models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    assert [token.value for token in model.tokenize(spell(text.encode()))] == [spell(c.encode()) for c in text]


def test_each_prefix_is_built_once_and_before_what_it_begins() -> None:
    merges = character_merges([CHARACTERS])
    built = [left + right for left, right in merges]
    prefixes = {c.encode()[:length] for c in CHARACTERS for length in range(2, len(c.encode()) + 1)}
    assert len(built) == len(prefixes)
    assert set(built) == prefixes
    for number, (left, right) in enumerate(merges):
        assert len(right) == 1
        assert len(left) == 1 or left in built[:number]


def test_frequent_characters_come_first_and_ties_go_by_code_point() -> None:
    merges = character_merges(["дд東", "éж東東"])
    whole = [left + right for left, right in merges if (left + right).decode(errors="ignore")]
    assert whole == [c.encode() for c in "東дéж"]


def test_single_bytes_need_no_merge() -> None:
    assert character_merges(["plain ASCII", ""]) == []
    assert character_merges([]) == []
