"""Faster encoders than the library a tokenizer is held in, taken only where their ids are proved to be the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from inkling.tokenizer.patterns import PATTERNS
from inkling.tokenizer.tokenizer import Tokenizer

_SAMPLE_CHARACTERS = 200_000
_PIECE_CHARACTERS = 4_000


class Encoder(Protocol):
    """Turns texts into token ids; a special token's text is text.

    Attributes:
        name: The library behind it.
    """

    name: str

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids one after the other, and the number of ids of each text: (tokens) and (texts) integers."""


class TokenizersEncoder:
    """The tokenizer itself: what others are compared with."""

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and lengths."""
        return _joined(self._tokenizer.encode_batch(texts))


class TiktokenEncoder:
    """tiktoken's BPE over the same tokens. It merges by the rank of the result, which is its id here."""

    name = "tiktoken"

    def __init__(self, tokenizer: Tokenizer) -> None:
        import tiktoken  # an extra

        pattern = tokenizer.pattern
        if pattern is None or not tokenizer.is_byte_level:
            raise ValueError("text is not split by one regular expression into strings of bytes")
        ranks = {token: number for number, token in enumerate(tokenizer.token_bytes) if token}
        self._encoding = tiktoken.Encoding("inkling", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and lengths."""
        return _joined([np.array(self._encoding.encode_ordinary(text), np.uint32) for text in texts])


class GigatokenEncoder:
    """gigatoken's BPE, for the patterns that it knows. Special tokens are taken from it, so that their text is text."""

    name = "gigatoken"

    def __init__(self, tokenizer: Tokenizer) -> None:
        import gigatoken  # an extra

        content = json.loads(tokenizer.to_json()) | {"added_tokens": [], "post_processor": None}
        if tokenizer.pattern == PATTERNS["gpt2"]:  # it knows this one only by another name
            content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        self._tokenizer = gigatoken.Tokenizer.from_json(json.dumps(content))

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and lengths."""
        import awkward  # comes with gigatoken

        if not texts:
            return np.empty(0, np.uint32), np.empty(0, np.int64)
        ids = self._tokenizer.encode_batch(list(texts), parallel=False)
        return awkward.to_numpy(awkward.flatten(ids)), awkward.to_numpy(awkward.num(ids))


_BY_SPEED: dict[str, Callable[[Tokenizer], Encoder]] = {"gigatoken": GigatokenEncoder, "tiktoken": TiktokenEncoder}


def fastest(tokenizer: Tokenizer, sample: Sequence[str]) -> tuple[Encoder, list[str]]:
    """The fastest installed encoder whose ids are those of `tokenizers` on a sample of the text and on awkward strings.

    Returns it, with a line about each faster one that was passed over.
    """
    texts = [*awkward_strings(tokenizer), *_pieces(sample)]
    slow = TokenizersEncoder(tokenizer)
    wanted = slow.encode(texts)
    notes = []
    for name, build in _BY_SPEED.items():
        try:
            encoder = build(tokenizer)
            found = encoder.encode(texts)
        except ImportError:
            continue
        except BaseException as error:  # panics of Rust are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            notes.append(f"{name} cannot be used: {' '.join(str(error).split())[:120]}")
            continue
        num_different = _count_different(wanted, found)
        if not num_different:
            return encoder, notes
        notes.append(f"{name} is not used: it encodes {num_different} of {len(texts)} texts otherwise")
    return slow, notes


def by_name(name: str, tokenizer: Tokenizer) -> Encoder:
    """An encoder that `fastest` chose, built again in another process."""
    return _BY_SPEED[name](tokenizer) if name in _BY_SPEED else TokenizersEncoder(tokenizer)


def awkward_strings(tokenizer: Tokenizer) -> list[str]:
    """Strings on which encoders differ if they differ at all; the same ones every time."""
    generator = random.Random(0)
    alphabet = " \t\n\r\x0b\x0c\u00a0\u2003\u200b\u3000aZéßñ'’0123٣.,;!?-_(){}<|>/\\日本語한글ไทยनि\u0301\u200d🌱👩🏽"
    drawn = ["".join(generator.choices(alphabet, k=length)) for length in (1, 2, 3, 5, 8, 20, 60) for _ in range(30)]
    specials = [f"{before}{token}{after}" for token in tokenizer.added_tokens for before, after in _AROUND]
    return [*_AWKWARD, *specials, *drawn]


_AROUND = [("", ""), ("a", "b"), (" ", "\n"), ("<", ">")]
_AWKWARD = [
    *(
        "",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\r\n\r\n",
        "\t\t",
        " \n ",
        "\n \n",
        "   \n\n\t x",
        "a\u00a0b",
        "\u3000\u3000a",
    ),
    *("I'll we'VE it'S 'tis 'LL 'd", "’ll", "1234567890", "3.14159e-10", "0x1F", "٣٤٥ ⅷ ² ½", "don't\nstop", "x" * 300),
    *("é" * 50, "e\u0301" * 50, "👩🏽‍🚀" * 9, "한국어 日本語 ไทย हिन्दी", "    if a:\n\t\treturn 1\n", "a  b   c    d"),
    *("!!!???...", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>", "<s></s>[INST]", "\ufeffbom", "nul\x00byte"),
    *(
        "ſtraße ﬁ Ǆ İ ı",
        "_snake_case CamelCase",
        "http://a.b/c?d=e&f",
        "\u200b\u200d\u2028\u2029",
        "𝔘𝔫𝔦",
        "�" * 3,
        " a ",
    ),
]


def _pieces(sample: Sequence[str]) -> Iterator[str]:
    """The beginning of the sample in short pieces, so that a difference is counted where it is."""
    left = _SAMPLE_CHARACTERS
    for text in sample:
        for start in range(0, min(len(text), left), _PIECE_CHARACTERS):
            yield text[start : start + _PIECE_CHARACTERS]
        left -= len(text)
        if left <= 0:
            return


def _joined(ids: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.fromiter((len(some) for some in ids), np.int64, len(ids))
    return np.concatenate([np.empty(0, np.uint32), *ids]) if len(ids) else np.empty(0, np.uint32), lengths


def _count_different(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> int:
    """Texts whose ids differ between two encodings of the same texts."""
    ids = [np.split(some, np.cumsum(lengths)[:-1]) for some, lengths in (first, second)]
    return sum(not np.array_equal(a, b) for a, b in zip(*ids, strict=True))
