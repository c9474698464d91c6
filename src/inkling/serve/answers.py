"""What clients get: completions and their pieces in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inkling.infer.completing import Completing, TokenLogprob
from inkling.tokenizer import Tokenizer

_NO_TOP = -9999.0
"""What OpenAI says for a log probability of minus infinity."""


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as text; one that is half a character as its bytes, as OpenAI spells them."""
    text = tokenizer.decode([token_id], skip_special=False)
    if "\N{REPLACEMENT CHARACTER}" in text and token_id < len(tokenizer.token_bytes):
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in tokenizer.token_bytes[token_id])
    return text


def chat_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Of `/v1/chat/completions`."""
    return {
        "content": [
            {
                **_chat_token(tokenizer, entry.token_id, entry.logprob),
                "top_logprobs": [_chat_token(tokenizer, number, value) for number, value in entry.top.items()],
            }
            for entry in entries
        ],
        "refusal": None,
    }


def _chat_token(tokenizer: Tokenizer, token_id: int, logprob: float | None) -> dict[str, Any]:
    data = tokenizer.token_bytes[token_id] if token_id < len(tokenizer.token_bytes) else b""
    text = token_text(tokenizer, token_id)
    return {"token": text, "logprob": _finite(logprob), "bytes": list(data or text.encode())}


def completion_logprobs(tokenizer: Tokenizer, entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """Of `/v1/completions`; `offset` is the place of the first token in the text."""
    tokens = [token_text(tokenizer, entry.token_id) for entry in entries]
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(tokenizer.decode([entry.token_id], skip_special=True))
    return {
        "tokens": tokens,
        "token_logprobs": [None if entry.logprob is None else _finite(entry.logprob) for entry in entries],
        "top_logprobs": [
            None
            if entry.logprob is None
            else {token_text(tokenizer, number): _finite(value) for number, value in entry.top.items()}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def _finite(logprob: float | None) -> float:
    return _NO_TOP if logprob is None or logprob < _NO_TOP else logprob


def usage_counts(used: dict[str, Any]) -> dict[str, int]:
    """The numbers of `usage` that a log keeps."""
    return {name: used[name] for name in ("prompt_tokens", "completion_tokens")}


def usage(sequences: Sequence[Completing], num_prompts: int) -> dict[str, Any]:
    """Tokens in and out; the end-of-text token before a prompt is not counted, as the client did not send it."""
    per_prompt = max(1, len(sequences) // max(1, num_prompts))
    prompt = sum(len(sequence.prompt_ids) - 1 for sequence in sequences[::per_prompt])
    completion = sum(len(sequence.token_ids) for sequence in sequences)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.num_cached for one in sequences[::per_prompt])},
    }
