"""New tokenizers from text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inkling.errors import TokenizerError
from inkling.tokenizer.bpe import ProgressFn, learn_merges
from inkling.tokenizer.char import character_merges
from inkling.tokenizer.patterns import check_pattern, default_pattern
from inkling.tokenizer.tokenizer import DEFAULT_SPECIALS, Tokenizer


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    pattern: str | None = None,
    special_tokens: Sequence[str] = DEFAULT_SPECIALS,
    num_workers: int = 1,
    on_progress: ProgressFn | None = None,
) -> Tokenizer:
    """A byte-level BPE of `vocab_size` tokens; of fewer when the text has no more pairs to merge.

    Args:
        pattern: How text is split: `gpt2`, `llama3` or `qwen2`; chosen by the size when not given.
        on_progress: Told how many merges of how many are learnt.

    Raises:
        TokenizerError: `vocab_size` leaves no room for the bytes, or the pattern is unknown.
    """
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise TokenizerError(f"a vocabulary of {vocab_size} is too small: bytes and special tokens take {smallest}")
    name = check_pattern(pattern or default_pattern(vocab_size))
    merges = learn_merges(texts, vocab_size - smallest, name, num_workers=num_workers, on_progress=on_progress)
    return Tokenizer.from_merges(merges, pattern=name, special_tokens=special_tokens)


def train_char(texts: Iterable[str], *, special_tokens: Sequence[str] = DEFAULT_SPECIALS) -> Tokenizer:
    """A tokenizer with one token for each character of the texts; others are spelled in bytes."""
    return Tokenizer.from_merges(character_merges(texts), pattern="gpt2", special_tokens=special_tokens)
