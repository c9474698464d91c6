"""Tokenizers in GGUF files: the `tokenizer.ggml.*` keys, from ours and to ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from inkling.errors import TokenizerError
from inkling.gguf.reader import strings_of

PRE_TOKENIZERS = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2"}
"""Our pattern → llama.cpp's name of it. It knows no way to be told a pattern itself."""
PATTERNS_OF_OTHERS = {"gpt-2": "gpt2", "llama-bpe": "llama3", "llama3": "llama3", "qwen2": "qwen2"}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
NFC = "NFC"
"""Unicode's composed form, to which Qwen's tokenizers bring text. llama.cpp leaves that out, which shows only on texts
that are not in it."""
NO_MERGES = "ÿ ÿ"
"""Stands for an empty list, which the `gguf` package cannot write: two bytes 0xFF, which no UTF-8 text holds."""
END_OF_TURN = "<|im_end|>"
"""Among the texts by which llama.cpp knows the end of a turn."""
_END_NAMES = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>")


def objections(content: Mapping[str, Any], pattern_name: str | None, is_byte_level: bool) -> list[str]:
    """Why a tokenizer, the content of its `tokenizer.json`, cannot leave for GGUF; empty when it can."""
    if content["model"]["type"] != "BPE" or not is_byte_level:
        return ["its tokenizer is no byte-level BPE"]
    if (content["normalizer"] or {"type": NFC})["type"] != NFC:
        return [f"its tokenizer changes text first ({content['normalizer']['type']}), which llama.cpp does not"]
    if pattern_name not in PRE_TOKENIZERS:
        return [
            f"its tokenizer splits text by a pattern that llama.cpp does not know (known: {', '.join(PRE_TOKENIZERS)})"
        ]
    return []


def to_keys(
    content: Mapping[str, Any], pattern_name: str, *, vocab_size: int, end_id: int, begins_with_end: bool
) -> dict[str, Any]:
    """The keys for a byte-level BPE.

    Args:
        content: Of its `tokenizer.json`.
        vocab_size: Rows of the model's embedding: ids without a token become unused ones, each with a text of its own,
            since llama.cpp ends the program on a text that occurs twice.
        end_id: Of the token that ends a document, which is also the one before the first.
        begins_with_end: Whether a text begins with that token.
    """
    tokens = [f"[PAD{number}]" for number in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for text, number in content["model"]["vocab"].items():
        tokens[number], types[number] = text, NORMAL
    for token in content["added_tokens"]:
        tokens[token["id"]], types[token["id"]] = token["content"], CONTROL if token["special"] else USER_DEFINED
    if len(set(tokens)) < len(tokens):
        raise TokenizerError(
            "two tokens have the same text, which no GGUF file can hold. Run: inkling tokenizer repair"
        )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    turn_id = next((token["id"] for token in content["added_tokens"] if token["content"] == END_OF_TURN), end_id)
    return {
        "model": "gpt2",
        "pre": PRE_TOKENIZERS[pattern_name],
        "tokens": tokens,
        "token_type": types,
        "merges": merges or [NO_MERGES],
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "eot_token_id": turn_id,
        "padding_token_id": end_id,
        "add_bos_token": begins_with_end,
        "add_eos_token": False,
    }


def from_keys(values: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]], str, dict[str, bool]]:
    """Vocabulary, merges, our name of the pattern, and the added tokens with whether each is a control token.

    Raises TokenizerError for a tokenizer that is no byte-level BPE with a known pattern.
    """
    kind, pre = values.get("tokenizer.ggml.model"), values.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise TokenizerError(f"its tokenizer is of the kind {kind!r}; only byte-level BPE (gpt2) can be taken in")
    if pre not in PATTERNS_OF_OTHERS:
        raise TokenizerError(f"its tokenizer splits text as {pre!r}; known are only {', '.join(PATTERNS_OF_OTHERS)}")
    tokens = strings_of(values, "tokenizer.ggml.tokens")
    types = values.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise TokenizerError("its tokenizer has another number of tokens than of their types")
    if len(set(tokens)) < len(tokens):
        raise TokenizerError("its tokenizer has two tokens with the same text")
    vocabulary = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    added = {token: types[n] == CONTROL for n, token in enumerate(tokens) if types[n] in (CONTROL, USER_DEFINED)}
    return vocabulary, _pairs(strings_of(values, "tokenizer.ggml.merges"), vocabulary), PATTERNS_OF_OTHERS[pre], added


def _pairs(merges: Sequence[str], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    if list(merges) == [NO_MERGES]:
        return []
    pairs = []
    for merge in merges:
        left, separator, right = merge.partition(" ")
        if not separator or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise TokenizerError(f"its tokenizer's merge {merge[:40]!r} joins no two tokens into a third")
        pairs.append((left, right))
    return pairs


def chat_template_of(values: Mapping[str, Any]) -> str | None:
    """The chat template of a file, where it has one."""
    template = values.get("tokenizer.chat_template")
    return template if isinstance(template, str) else None


def content_of(tokenizer_json: str) -> dict[str, Any]:
    """The content of a `tokenizer.json`."""
    content: dict[str, Any] = json.loads(tokenizer_json)
    return content
