"""How a tokenizer treats a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from inkling.tokenizer.tokenizer import Tokenizer

_DIGITS = "In 1984, 1234567 people paid 3.14159."
_WHITE_SPACE = "if a:\n    if b:\n        return c\n\n\tend"
_NUM_EXAMPLES = 10


def report(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Numbers and examples about `tokenizer` on `texts`, JSON-able.

    `unused` counts tokens that never occur in the texts: many of them make a vocabulary too large for the text.
    """
    used = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    num_bytes = num_words = num_changed = num_documents = 0
    for text in texts:
        ids = tokenizer.encode_batch([text])[0]
        used += np.bincount(ids, minlength=len(used))
        num_bytes += len(text.encode())
        num_words += len(text.split())
        num_changed += tokenizer.decode(ids.tolist()) != text
        num_documents += 1
    table = tokenizer.token_bytes
    num_tokens = int(used.sum())
    ordinary = [number for number, token in enumerate(table) if token]
    unused = [number for number in ordinary if not used[number]]
    longest = sorted(ordinary, key=lambda number: -len(table[number]))[:_NUM_EXAMPLES]
    return {
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": list(tokenizer.special_tokens),
        "pattern": tokenizer.pattern_name,
        "documents": num_documents,
        "bytes": num_bytes,
        "tokens": num_tokens,
        "bytes_per_token": num_bytes / max(num_tokens, 1),
        "tokens_per_word": num_tokens / max(num_words, 1),
        "single_byte_share": int(used[[n for n in ordinary if len(table[n]) == 1]].sum()) / max(num_tokens, 1),
        "unused": len(unused),
        "unused_examples": [_show(table[number]) for number in unused[-_NUM_EXAMPLES:]],
        "longest": [_show(table[number]) for number in longest],
        "digits": [_show(table[number]) for number in tokenizer.encode(_DIGITS)],
        "white_space": [_show(table[number]) for number in tokenizer.encode(_WHITE_SPACE)],
        "documents_changed_by_round_trip": num_changed,
    }


def print_report(found: dict[str, Any]) -> None:
    """A report for people."""
    print(f"{found['tokenizer']}: {found['vocab_size']:,} tokens, pattern {found['pattern'] or 'of its own'}")
    if found.get("on_training_text"):
        print("  the text is too short to hold some back: these are figures on the training text itself")
    print(f"  text             {found['documents']:,} documents, {found['bytes']:,} bytes, {found['tokens']:,} tokens")
    print(f"  bytes per token  {found['bytes_per_token']:.3f}")
    print(f"  tokens per word  {found['tokens_per_word']:.3f}")
    print(f"  unused tokens    {found['unused']:,}  {' '.join(found['unused_examples'])}")
    print(f"  longest tokens   {' '.join(found['longest'])}")
    print(f"  digits           {' '.join(found['digits'])}")
    print(f"  white space      {' '.join(found['white_space'])}")
    changed = found["documents_changed_by_round_trip"]
    print(f"  lossless         {'yes' if not changed else f'no: {changed} documents come back changed'}")


def _show(token: bytes) -> str:
    """A token so that its spaces can be seen."""
    return repr(token.decode("utf-8", errors="backslashreplace"))
