"""Output in a given form: which tokens may come next, by `llguidance` (an extra).

White space is compact by default: weak models otherwise write it without end.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkling.errors import ConfigError, MissingExtraError
from inkling.tokenizer import Tokenizer

_MAX_SCHEMA_BYTES = 1 << 16
ANY_OBJECT: dict[str, Any] = {"type": "object"}


class GrammarMaker:
    """Makes grammars for one tokenizer.

    Raises MissingExtraError without the `llguidance` package.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        try:
            import llguidance
        except ImportError:
            raise MissingExtraError("llguidance", "serve", "output in a given form") from None
        ends = [tokenizer.special_tokens.get("<|im_end|>", tokenizer.eot_id), tokenizer.eot_id]
        wrapped = llguidance.TokenizerWrapper(_ForGuidance(tokenizer, vocab_size))
        self._tokenizer = llguidance.LLTokenizer(wrapped, n_vocab=vocab_size, eos_token=sorted(set(ends)))

    def json(self, schema: dict[str, Any]) -> Grammar:
        """Text that is JSON of this schema (json-schema.org). Raises ConfigError for one that cannot be used."""
        import llguidance

        text = json.dumps(schema)
        if len(text) > _MAX_SCHEMA_BYTES:
            raise ConfigError(f"the schema is larger than {_MAX_SCHEMA_BYTES:,} bytes")
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
            matcher = llguidance.LLMatcher(self._tokenizer, grammar)
        except ValueError as error:
            raise ConfigError(f"the schema cannot be used: {' '.join(str(error).split())[:200]}") from None
        if matcher.is_error():
            raise ConfigError(f"the schema cannot be used: {' '.join(matcher.get_error().split())[:200]}")
        return Grammar(matcher)


class Grammar:
    """The state of one completion that follows a grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, vocab_size: int) -> Tensor:
        """Which tokens may come next, (V) bool."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[:vocab_size].astype(bool))

    def accept(self, token_id: int) -> bool:
        """Take a token; whether the text is complete and nothing may follow."""
        self._matcher.consume_token(token_id)
        return bool(self._matcher.is_stopped())


class _ForGuidance:
    """A tokenizer as the library wants it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eot_id
        self.bos_token_id = None
        special = {number: text for text, number in tokenizer.special_tokens.items()}
        self.special_token_ids = sorted(special)
        known = tokenizer.token_bytes
        self.tokens = [
            special[number].encode() if number in special else known[number] if number < len(known) else b""
            for number in range(vocab_size)
        ]

    def __call__(self, text: str | bytes) -> list[int]:
        """Token ids."""
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))
