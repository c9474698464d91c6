"""Functions that a model calls: the grammar that keeps calls to their schemas, and the parser."""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.infer.grammar import Grammar, GrammarMaker
from inkling.serve.tools import CallParser
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import TOOL_CALL, TOOL_CALL_END, tool_call_text

ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    },
}


def grammar(tokenizer: Tokenizer, *, required: bool, several: bool) -> Grammar:
    maker = GrammarMaker(tokenizer, tokenizer.vocab_size)
    return maker.calls([ADD], required=required, several=several, begin=TOOL_CALL, end=TOOL_CALL_END)


def follows(tokenizer: Tokenizer, text: str, **options: bool) -> bool:
    """Whether a text and its end are what the grammar allows."""
    held = grammar(tokenizer, **options)
    ids = tokenizer.encode(text)
    for number, token_id in enumerate(ids, start=1):
        if not held.allowed(tokenizer.vocab_size)[token_id]:
            return False
        if held.accept(token_id):
            return number == len(ids)
    return bool(held.allowed(tokenizer.vocab_size)[tokenizer.eot_id])


def test_calls_fit_their_schema_and_other_text_is_free(small_tokenizer: Tokenizer) -> None:
    call, wrong = tool_call_text("add", {"x": 2}), tool_call_text("add", {"x": "2"})
    free = {"required": False, "several": True}
    for text in ("hello", "a <tool_ b", call, f"I say\n{call}", f"{call}\n{call}", ""):
        assert follows(small_tokenizer, text, **free), text
    for text in (wrong, f"x {wrong}", f"{call}{wrong}", tool_call_text("sub", {"x": 2}), "<tool_call>nothing"):
        assert not follows(small_tokenizer, text, **free), text
    assert not follows(small_tokenizer, f"{call}\n{call}", required=False, several=False)
    must = {"required": True, "several": False}
    assert follows(small_tokenizer, call, **must)
    for text in ("hello", f"hello {call}", f"{call}{call}", ""):
        assert not follows(small_tokenizer, text, **must), text


def test_the_mask_is_of_the_asked_size(small_tokenizer: Tokenizer) -> None:
    mask = grammar(small_tokenizer, required=True, several=True).allowed(small_tokenizer.vocab_size)
    assert mask.shape == (small_tokenizer.vocab_size,)
    assert mask.dtype == torch.bool


words = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)


@settings(derandomize=True, deadline=None)
@given(
    before=words,
    arguments=st.lists(st.dictionaries(st.sampled_from("xyz"), st.text(max_size=5), max_size=2), max_size=3),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_pieces_give_the_same_as_the_whole(before: str, arguments: list[dict[str, Any]], cuts: list[int]) -> None:
    text = before + "".join(tool_call_text("f", one) + "\n" for one in arguments)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parser, said = CallParser(), ""
    for start, stop in itertools.pairwise(places):
        said += parser.push(text[start:stop])[0]
    said += parser.finish()
    assert [json.loads(call["function"]["arguments"]) for call in parser.calls] == arguments
    assert len({call["id"] for call in parser.calls}) == len(arguments)
    assert said == (before.rstrip() if arguments else before)


def test_a_call_that_was_cut_off_is_text() -> None:
    parser = CallParser()
    text, calls = parser.push('yes <tool_call>\n{"name": "f", "argum')
    assert (text + parser.finish(), list(calls)) == ('yes<tool_call>\n{"name": "f", "argum', [])
