"""What must be the same after an export: tokens of awkward strings, probabilities, greedy text, the chat template."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from inkling import checkpoint
from inkling.checkpoint import StoredModel
from inkling.models import KVCache, LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.encoders import awkward_strings

NUM_GREEDY = 64
NUM_PREFIXES = 8
_TIE = 2e-3
"""Nats between two tokens that a runtime's own rounding may turn round; llama.cpp looks GELU up in a table of fp16."""
_TEXT = (
    "Once upon a time a small model learned to write. It read 3,141 books, café menus and\n    def code(x): return x\n"
)


@dataclass(frozen=True)
class Expected:
    """What our own computation says.

    Attributes:
        prompt_ids: The end-of-text token, then a text.
        prefix_lengths: After so many tokens of the prompt the next token's probabilities are compared.
        log_probabilities: One row for each of these, (P, V) fp32.
        greedy_ids: The most probable tokens after the prompt, to the end-of-text token at most.
        greedy_margins: By how many nats each was more probable than the second one.
        texts: Awkward strings.
        plain_ids: Their tokens, special tokens being text.
        special_ids: Their tokens, special tokens being special.
    """

    prompt_ids: list[int]
    prefix_lengths: list[int]
    log_probabilities: np.ndarray
    greedy_ids: list[int]
    greedy_margins: list[float]
    texts: list[str]
    plain_ids: list[list[int]]
    special_ids: list[list[int]]


@dataclass(frozen=True)
class Verification:
    """How what was exported differs from what is here.

    Attributes:
        runtime: What opened it, with its version.
        kl: Kullback-Leibler divergence of the next token's probabilities from ours, nats, mean over some positions.
        top_agreement: Share of these positions with the same most probable token.
        num_strings: Strings that were tokenized by both.
        num_different_strings: Those tokenized otherwise, or None where the runtime has no tokenizer of its own.
        num_greedy: Greedy tokens compared.
        num_same_greedy: Those before the first difference.
        same_chat_template: Whether a rendered conversation is the same; None without a template.
        problems: What must not be; empty when the export is good.
    """

    runtime: str
    kl: float
    top_agreement: float
    num_greedy: int
    num_same_greedy: int
    num_strings: int = 0
    num_different_strings: int | None = None
    same_chat_template: bool | None = None
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def expected(stored: StoredModel) -> Expected:
    """Compute what any runtime should say of this model."""
    model, tokenizer = checkpoint.load_model(stored.folder)
    context = stored.config.max_position_embeddings
    prompt_ids = [tokenizer.eot_id, *tokenizer.encode(_TEXT)][: max(1, min(64, context // 2))]
    lengths = sorted({max(1, round(len(prompt_ids) * part / NUM_PREFIXES)) for part in range(1, NUM_PREFIXES + 1)})
    texts = awkward_strings(tokenizer)
    if tokenizer.normalizer == "NFC":  # which not every runtime does: whoever serves the model has to
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    return Expected(
        prompt_ids,
        lengths,
        _log_probabilities(model, prompt_ids, lengths),
        *_greedy(model, tokenizer, prompt_ids, min(NUM_GREEDY, context - len(prompt_ids))),
        texts,
        [ids.tolist() for ids in tokenizer.encode_batch(texts)],
        [ids.tolist() for ids in tokenizer.encode_batch(texts, allow_special=True)],
    )


@torch.inference_mode()
def _log_probabilities(model: LanguageModel, ids: list[int], lengths: list[int]) -> np.ndarray:
    hidden = model.hidden(torch.tensor([ids]))[0, torch.tensor(lengths) - 1]  # (1, T, C) -> (P, C)
    found: np.ndarray = model.logits(hidden).double().log_softmax(-1).numpy()  # (P, V)
    return found


@torch.inference_mode()
def _greedy(
    model: LanguageModel, tokenizer: Tokenizer, prompt_ids: list[int], limit: int
) -> tuple[list[int], list[float]]:
    cache = KVCache(model.config, 1, len(prompt_ids) + limit)
    new, found, margins = prompt_ids, list[int](), list[float]()
    while len(found) < limit:
        logits = model.logits(model.hidden(torch.tensor([new]), cache=cache)[0, -1])
        best, second = logits.topk(2).values.tolist()
        new = [int(logits.argmax())]
        if new[0] == tokenizer.eot_id:
            break
        found += new
        margins.append(best - second)
    return found, margins


def verdict(
    runtime: str,
    wanted: Expected,
    log_probabilities: Sequence[np.ndarray],
    greedy_ids: Sequence[int],
    *,
    max_kl: float,
    exact: bool,
    num_different: int | None = None,
    same_chat: bool | None = None,
) -> Verification:
    """What a runtime's answers say about an export.

    Args:
        log_probabilities: (P, V), once for each way in which the runtime was asked; the worst counts.
        max_kl: Divergence beyond which the export is wrong, and not merely rounded.
        exact: Whether greedy text has to be the same.
        num_different: Strings tokenized otherwise; None where the runtime has no tokenizer.
    """
    compared = [compare(wanted.log_probabilities, table) for table in log_probabilities]
    kl, agreement = max(compared, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    same = num_same(wanted.greedy_ids, greedy_ids)
    problems = []
    if num_different:
        problems.append(f"{num_different} of {len(wanted.texts)} strings are tokenized otherwise")
    if not kl <= max_kl:
        problems.append(f"the probabilities differ by {kl:.1e} nats")
    if exact and (problem := greedy_problem(wanted, same)):
        problems.append(problem)
    if same_chat is False:
        problems.append("the chat template is rendered otherwise")
    num_strings = 0 if num_different is None else len(wanted.texts)
    return Verification(
        runtime, kl, agreement, len(wanted.greedy_ids), same, num_strings, num_different, same_chat, problems
    )


def compare(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Mean divergence and agreement of the most probable token, of log probabilities (P, V) twice."""
    found = found.astype(np.float64)
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))  # fp32 sums of theirs are not quite 1
    divergence = (np.exp(wanted) * (wanted - found)).sum(axis=1)
    return float(divergence.mean()), float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean())


def greedy_problem(wanted: Expected, num_same_greedy: int) -> str | None:
    """What is wrong with greedy text that differs after so many tokens: nothing where two were as good as equal."""
    if num_same_greedy == len(wanted.greedy_ids) or wanted.greedy_margins[num_same_greedy] < _TIE:
        return None
    return f"greedy text differs after {num_same_greedy} tokens"


def num_same(wanted: Sequence[int], found: Sequence[int]) -> int:
    """Elements before the first difference."""
    pairs = zip(wanted, found, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(found)))
