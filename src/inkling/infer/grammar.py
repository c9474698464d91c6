"""Output in a given form: which tokens may come next, by `llguidance` (an extra).

White space is compact by default: weak models otherwise write it without end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from inkling.errors import ConfigError, MissingExtraError
from inkling.tokenizer import Tokenizer

_Form = Literal["json_schema", "regex", "choice", "grammar", "lark"]
_MAX_BYTES = 1 << 16
_SPACED = {"key_separator": ": ", "item_separator": ", "}
"""How calls stand in the texts that models were trained on."""
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

    def json(self, schema: Mapping[str, Any]) -> Grammar:
        """Text that is JSON of this schema (json-schema.org). Raises ConfigError for one that cannot be used."""
        return self._grammar(
            "schema", "json_schema", json.dumps({**schema, "x-guidance": {"whitespace_flexible": False}})
        )

    def regex(self, pattern: str) -> Grammar:
        """Text that a regular expression matches as a whole. Raises ConfigError as `json`."""
        return self._grammar("regular expression", "regex", pattern)

    def choice(self, texts: Sequence[str]) -> Grammar:
        """One of some texts. Raises ConfigError as `json`."""
        return self._grammar("choice", "choice", json.dumps(list(texts)))

    def rules(self, grammar: str) -> Grammar:
        """Text of a grammar, in llama.cpp's GBNF or in Lark. Raises ConfigError as `json`."""
        return self._grammar("grammar", "grammar", grammar)

    def calls(
        self, tools: Sequence[Mapping[str, Any]], *, required: bool, several: bool, begin: str, end: str
    ) -> Grammar:
        """Calls of functions, each between `begin` and `end`, or any other text where none is required.

        Args:
            tools: name and parameters (a JSON schema) of each.
        """
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": tool["name"]}, "arguments": tool["parameters"]},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
        schema = {"anyOf": calls, "x-guidance": {"whitespace_flexible": False, **_SPACED}}
        call = f"{json.dumps(chr(10))} %json {json.dumps(schema)} {json.dumps(chr(10) + end)}"
        more = "+" if several else ""
        if required:
            rules = f"start: call{more}\ncall: {json.dumps(begin)} {call} {json.dumps(chr(10))}?\n"
        else:  # `begin` anywhere in a text is a call's, which "lazy" makes sure of
            rules = (
                f"start: call{more} | TEXT\ntrigger[lazy]: TEXT {json.dumps(begin)}\n"
                f"call: trigger {call}\nTEXT: /(?s:.*)/\n"
            )
        return self._grammar("tools", "lark", "%llguidance {}\n" + rules)

    def _grammar(self, what: str, form: _Form, text: str) -> Grammar:
        import llguidance

        if len(text) > _MAX_BYTES:
            raise ConfigError(f"the {what} is larger than {_MAX_BYTES:,} bytes")
        try:
            matcher = llguidance.LLMatcher(self._tokenizer, llguidance.grammar_from(form, text), log_level=0)
        except (ValueError, AssertionError, RecursionError) as error:
            raise ConfigError(f"the {what} cannot be used: {' '.join(str(error).split())[:200]}") from None
        if matcher.is_error():
            raise ConfigError(f"the {what} cannot be used: {' '.join(matcher.get_error().split())[:200]}")
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
