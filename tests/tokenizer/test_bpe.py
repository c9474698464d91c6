"""Merges equal those of Hugging Face's trainer, ties included."""

from __future__ import annotations

import json
import random

import pytest
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from inkling.errors import TokenizerError
from inkling.tokenizer.bpe import count_pretokens, learn_merges
from inkling.tokenizer.char import character_merges
from inkling.tokenizer.patterns import PATTERNS, default_pattern
from inkling.tokenizer.stand_ins import CHARACTER_OF_BYTE
from inkling.tokenizer.train import train_bpe, train_char

CODE = "def f(x):\n\treturn x+1  # 1984\n\n\nclass A1:\n    pass\r\n"
MIXED = (
    "Naïve café, 東京と大阪 — здравствуй мир! 😀😀 ٣٤٥ 12345 don't WE'LL I'm\u00a0here\u2003there ſ's \x1c\x1f\x0b x"
)


def corpus(seed: int) -> list[str]:
    """Texts with many ties: short words over a small alphabet, code, several scripts."""
    chosen = random.Random(seed)
    words = ["".join(chosen.choices("abcde", k=chosen.randint(1, 7))) for _ in range(300)]
    texts = [" ".join(chosen.choices(words, k=60)) for _ in range(20)]
    return [*texts, CODE * 3, MIXED, "aaaaaaa aaa aaaa " * 9, "", MIXED[::-1], "\n\n  \n x\n" * 4]


def reference_merges(texts: list[str], num_merges: int, pattern: str) -> list[tuple[str, str]]:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]


def spelled(merges: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    spell = lambda token: "".join(CHARACTER_OF_BYTE[byte] for byte in token)  # noqa: E731
    return [(spell(left), spell(right)) for left, right in merges]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_merges_are_those_of_the_reference(pattern: str, seed: int) -> None:
    texts = corpus(seed)
    assert spelled(learn_merges(texts, 700, pattern)) == reference_merges(texts, 700, pattern)


@pytest.mark.parametrize(("text", "num_merges"), [("abab cd", 1), ("abcd cdef", 1), ("abc", 0), ("", 0)])
def test_it_ends_where_the_reference_ends_when_no_pair_stands_twice(text: str, num_merges: int) -> None:
    ours = spelled(learn_merges([text], 700, "gpt2"))
    assert ours == reference_merges([text], 700, "gpt2")
    assert len(ours) == num_merges


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_processes_give_the_merges_of_the_reference(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkling.tokenizer.bpe._BATCH_CHARACTERS", 1_000)  # several batches for each process
    texts = corpus(4) * 3
    assert spelled(learn_merges(texts, 200, pattern, num_workers=2)) == reference_merges(texts, 200, pattern)


def test_long_texts_are_counted_in_pieces_without_a_difference() -> None:
    text = "".join(corpus(5)) * 4
    import regex

    whole = regex.findall(PATTERNS["llama3"], text)
    assert sum(count_pretokens([text], "llama3").values()) == len(whole)
    assert set(count_pretokens([text], "llama3")) == set(whole)


def test_a_vocabulary_without_room_and_an_unknown_pattern() -> None:
    with pytest.raises(TokenizerError, match="bytes and special tokens take 259"):
        train_bpe(["a"], 258)
    with pytest.raises(TokenizerError, match="did you mean 'gpt2'"):
        train_bpe(["a"], 300, pattern="gpt")


def test_small_vocabularies_split_numbers_into_digits() -> None:
    assert (default_pattern(16_383), default_pattern(16_384)) == ("qwen2", "llama3")
    tokens = train_bpe(["1234 " * 50], 300).encode("1234")
    assert len(tokens) == 4


def test_each_character_of_the_text_is_one_token() -> None:
    text = "aé東😀é"
    tokenizer = train_char([text])
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode("unseen: Ж")) == "unseen: Ж"
    assert train_char(["plain ASCII"]).vocab_size == 259
    assert character_merges(["é" * 3 + "東"])[0] == ("é".encode()[:1], "é".encode()[1:])
