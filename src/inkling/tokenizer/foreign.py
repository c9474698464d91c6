"""Tokenizers in other files than `tokenizer.json`: GPT-2's `encoder.json` and `vocab.bpe`, tiktoken's ranks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import tokenizers

from inkling.errors import MissingExtraError, TokenizerError, reason_of
from inkling.tokenizer.patterns import PATTERNS
from inkling.tokenizer.stand_ins import CHARACTER_OF_BYTE
from inkling.tokenizer.tokenizer import EOT, _byte_level_bpe, _spell


def load_gpt2_files(folder: Path) -> tokenizers.Tokenizer:
    """A folder with `encoder.json` and `vocab.bpe`, or the same two as `vocab.json` and `merges.txt`."""
    for vocabulary_name, merges_name in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        if (folder / vocabulary_name).exists() and (folder / merges_name).exists():
            break
    else:
        raise TokenizerError(f"{folder} holds no tokenizer.json. Train one: inkling tokenizer train")
    try:
        vocabulary: dict[str, int] = json.loads((folder / vocabulary_name).read_text(encoding="utf-8"))
        lines = (folder / merges_name).read_text(encoding="utf-8").splitlines()
        merges = [(left, right) for left, right in (line.split() for line in lines if line and line[:9] != "#version:")]
        specials = [token for token in vocabulary if token.startswith("<|") and token.endswith("|>")]
        return _byte_level_bpe(vocabulary, merges, PATTERNS["gpt2"], specials or [EOT])
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{folder / vocabulary_name} and {merges_name} are damaged ({error})") from None


def load_tiktoken_ranks(path: Path) -> tokenizers.Tokenizer:
    """A `*.tiktoken` file: a token in base64 and its rank on each line. Text is split as Llama 3 does.

    The file does not say how text is split; of the files in use, most split as Llama 3 or as cl100k, which is the same.
    Where `inkling tokenizer convert` wrote the file, `*.tiktoken.json` beside it says.
    """
    try:
        lines = path.read_text(encoding="ascii").split("\n")
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path} is no file of tiktoken ranks ({reason_of(error)})") from None
    beside = path.with_name(f"{path.name}.json")
    if not beside.exists():
        return _from_ranks(ranks, PATTERNS["llama3"], {EOT: max(ranks.values()) + 1})
    try:
        more = json.loads(beside.read_text(encoding="utf-8"))
        return _from_ranks(ranks, str(more["pat_str"]), {str(k): int(v) for k, v in more["special_tokens"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"{beside} is damaged ({error!r})") from None


def load_tiktoken_encoding(name: str) -> tokenizers.Tokenizer:
    """An encoding of the `tiktoken` package by name, which may have to download it."""
    try:
        import tiktoken  # an extra
    except ImportError:
        raise MissingExtraError("tiktoken", "tiktoken", f"the tokenizer tiktoken:{name}") from None
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # a download that fails raises whatever its transport raises
        raise TokenizerError(
            f"tiktoken has no encoding {name!r} at hand ({' '.join(str(error).split())[:150]})"
        ) from None
    return _from_ranks(encoding._mergeable_ranks, encoding._pat_str, encoding._special_tokens)


def _from_ranks(ranks: dict[bytes, int], pattern: str, special_tokens: dict[str, int]) -> tokenizers.Tokenizer:
    """A BPE with the same ids. Ranks name the result of each merge; its two parts are found by merging up to it."""
    if any(bytes([byte]) not in ranks for byte in CHARACTER_OF_BYTE):
        raise TokenizerError("these tiktoken ranks lack some of the 256 bytes, so they cannot spell every text")
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = merge_up_to(token, ranks, rank)
            if len(parts) == 2:
                merges.append((_spell(parts[0]), _spell(parts[1])))
    vocabulary = {_spell(token): rank for token, rank in ranks.items()} | special_tokens
    return _byte_level_bpe(vocabulary, merges, pattern, list(special_tokens), ignore_merges=True)


def merge_up_to(token: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """Merge the bytes of `token` with the merges of lower rank than `limit`."""
    parts = [bytes([byte]) for byte in token]
    while True:
        best, place = limit, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1])
            if rank is not None and rank < best:
                best, place = rank, i
        if place < 0:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
