"""How text is split before merges apply: the three patterns that llama.cpp knows by name.

A tokenizer with any other pattern cannot leave for llama.cpp, so no other is offered for training.
"""

from __future__ import annotations

from inkling.errors import TokenizerError, did_you_mean

PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
"""Numbers: `gpt2` keeps them whole, `llama3` cuts them into threes, `qwen2` into digits."""

PATTERN_OF_DIGITS = {"whole": "gpt2", "threes": "llama3", "single": "qwen2"}
"""The pattern that cuts numbers in each way. They treat white space differently too: `gpt2` joins a line end with the
indentation after it; the others keep it apart and join line ends with the punctuation before, which suits code."""

_LARGE_VOCABULARY = 16_384


def default_pattern(vocab_size: int) -> str:
    """`qwen2` for small vocabularies, which cannot afford a token for each number below 1,000; else `llama3`."""
    return "qwen2" if vocab_size < _LARGE_VOCABULARY else "llama3"


def choose_pattern(pattern: str | None, digits: str | None, vocab_size: int) -> str:
    """The pattern by its name, or else by how it cuts numbers, or else by the size of the vocabulary.

    Raises TokenizerError when name and digits contradict each other.
    """
    if digits is not None:
        by_digits = PATTERN_OF_DIGITS[digits]
        if pattern not in (None, by_digits):
            raise TokenizerError(
                f"--pattern {pattern} does not cut digits {digits}: that is {by_digits}. Leave one out"
            )
        return by_digits
    return check_pattern(pattern) if pattern is not None else default_pattern(vocab_size)


def check_pattern(name: str) -> str:
    """`name`, if it is one of the three. Raises TokenizerError otherwise."""
    if name not in PATTERNS:
        raise TokenizerError(f"there is no pattern {name!r}{did_you_mean(name, PATTERNS)}")
    return name
