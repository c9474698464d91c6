"""Tokenizers for other tools: tiktoken's ranks, GPT-2's two files. Each is read back and compared before it stays."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Literal

from inkling import files
from inkling.errors import TokenizerError
from inkling.tokenizer.encoders import awkward_strings
from inkling.tokenizer.patterns import PATTERNS
from inkling.tokenizer.tokenizer import Tokenizer

Layout = Literal["tokenizer.json", "tiktoken", "gpt2"]


def export(tokenizer: Tokenizer, folder: Path, layout: Layout) -> list[str]:
    """Write a tokenizer into a new folder; the names of the files.

    `tiktoken` writes `tokenizer.tiktoken`, and `tokenizer.tiktoken.json` with what such a file cannot say: the pattern
    and the special tokens. `gpt2` writes `encoder.json` and `vocab.bpe`.

    Raises TokenizerError when the tokenizer cannot be said in that layout, or would encode a text otherwise.
    """
    if folder.exists() and any(folder.iterdir()):
        raise TokenizerError(f"{folder} is not empty; choose another -o")
    with files.new_folder(folder) as temporary:
        if layout == "tiktoken":
            _write_ranks(tokenizer, temporary)
        elif layout == "gpt2":
            _write_gpt2(tokenizer, temporary)
        else:
            tokenizer.save(temporary)
        source = temporary / "tokenizer.tiktoken" if layout == "tiktoken" else temporary
        _compare(tokenizer, Tokenizer.load(source), layout)
        return sorted(path.name for path in temporary.iterdir())


def _write_ranks(tokenizer: Tokenizer, folder: Path) -> None:
    if not tokenizer.is_byte_level or tokenizer.pattern is None:
        raise TokenizerError("tiktoken splits text by one regular expression into strings of bytes; this one does not")
    special = set(tokenizer.special_tokens.values())
    ranks = [(token, number) for number, token in enumerate(tokenizer.token_bytes) if token and number not in special]
    lines = "".join(f"{base64.b64encode(token).decode()} {number}\n" for token, number in ranks)
    files.write_text(folder / "tokenizer.tiktoken", lines)
    more = {"pat_str": tokenizer.pattern, "special_tokens": tokenizer.special_tokens}
    files.write_json(folder / "tokenizer.tiktoken.json", more)


def _write_gpt2(tokenizer: Tokenizer, folder: Path) -> None:
    if not tokenizer.is_byte_level or tokenizer.pattern != PATTERNS["gpt2"]:
        raise TokenizerError(
            "GPT-2's files can only hold tokenizers that split text by GPT-2's pattern; this one does not"
        )
    content = json.loads(tokenizer.to_json())
    vocabulary = {**content["model"]["vocab"], **tokenizer.special_tokens}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    files.write_text(folder / "encoder.json", json.dumps(vocabulary, ensure_ascii=True))
    files.write_text(folder / "vocab.bpe", "#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges))


def _compare(tokenizer: Tokenizer, again: Tokenizer, layout: Layout) -> None:
    """Raises TokenizerError when the tokenizer that was read back encodes a text otherwise."""
    texts = awkward_strings(tokenizer)
    for allow_special in (False, True):
        for text in texts:
            if tokenizer.encode(text, allow_special=allow_special) != again.encode(text, allow_special=allow_special):
                raise TokenizerError(
                    f"{layout} cannot hold this tokenizer: {text[:40]!r} would be encoded otherwise. Use tokenizer.json"
                )
