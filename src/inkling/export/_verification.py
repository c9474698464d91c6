"""What must be the same after an export: tokens of awkward strings, probabilities, greedy text, the chat template."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkling.checkpoint import StoredModel
from inkling.export._by_layer import open_by_layer
from inkling.export._chat import render
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
class Questions:
    """What a runtime is asked.

    Attributes:
        prompt_ids: The end-of-text token, then a text.
        prefix_lengths: After so many tokens of the prompt the next token's probabilities are compared.
        num_greedy: So many of the most probable tokens after the prompt, to the end-of-text token at most.
        texts: Awkward strings.
    """

    prompt_ids: list[int]
    prefix_lengths: list[int]
    num_greedy: int
    texts: list[str]


@dataclass(frozen=True)
class Answers:
    """What a runtime said.

    Attributes:
        runtime: What it is, with its version.
        log_probabilities: (P, V) for P prefixes, once for each way in which it was asked; the worst counts.
        greedy_ids: The most probable tokens.
        plain_ids: Tokens of each text, special tokens being text; None where that was not asked.
        special_ids: The same, special tokens being special.
        chat: A rendered conversation; None without a template.
    """

    runtime: str
    log_probabilities: list[np.ndarray]
    greedy_ids: list[int]
    plain_ids: list[list[int]] | None = None
    special_ids: list[list[int]] | None = None
    chat: str | None = None


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


def questions(stored: StoredModel) -> Questions:
    """What any runtime should say the same of as this model."""
    tokenizer = stored.tokenizer
    context = stored.config.max_position_embeddings
    prompt_ids = [tokenizer.eot_id, *tokenizer.encode(_TEXT)][: max(1, min(64, context // 2))]
    lengths = sorted({max(1, round(len(prompt_ids) * part / NUM_PREFIXES)) for part in range(1, NUM_PREFIXES + 1)})
    texts = awkward_strings(tokenizer)
    if tokenizer.normalizer == "NFC":  # which not every runtime does: whoever serves the model has to
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    return Questions(prompt_ids, lengths, min(NUM_GREEDY, context - len(prompt_ids)), texts)


def verdict(stored: StoredModel, asked: Questions, answers: Answers, *, max_kl: float, exact: bool) -> Verification:
    """What a runtime's answers say about an export.

    Our own computation comes second and takes one pass: the most probable tokens are looked for along the runtime's
    text, which is the same as long as both agree. So one model is in memory at a time.

    Args:
        max_kl: Divergence beyond which the export is wrong, and not merely rounded.
        exact: Whether greedy text has to be the same.
    """
    end_ids = stored.tokenizer.end_ids
    greedy_ids = list(takewhile(lambda token: token not in end_ids, answers.greedy_ids))
    wanted, after_prompt = _log_probabilities(stored, asked, greedy_ids)
    compared = [compare(wanted, table) for table in answers.log_probabilities]
    kl, agreement = max(compared, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0])
    num_greedy = len(after_prompt)
    same, margin = greedy_agreement(after_prompt, greedy_ids, end_ids)
    different = _num_different(stored.tokenizer, asked.texts, answers)
    same_chat = None if answers.chat is None else answers.chat == render(stored.tokenizer)
    problems = []
    if different:
        problems.append(f"{different} of {len(asked.texts)} strings are tokenized otherwise")
    if not kl <= max_kl:
        problems.append(f"the probabilities differ by {kl:.1e} nats")
    if exact and same < num_greedy and margin >= _TIE:
        problems.append(f"greedy text differs after {same} tokens")
    if same_chat is False:
        problems.append("the chat template is rendered otherwise")
    num_strings = 0 if different is None else len(asked.texts)
    return Verification(answers.runtime, kl, agreement, num_greedy, same, num_strings, different, same_chat, problems)


@torch.inference_mode()
def _log_probabilities(stored: StoredModel, asked: Questions, greedy_ids: list[int]) -> tuple[np.ndarray, Tensor]:
    """Ours after each prefix, (P, V), and after the prompt and each token that the runtime chose, (G, V)."""
    model = open_by_layer(stored)
    num_prompt = len(asked.prompt_ids)
    ids = [*asked.prompt_ids, *greedy_ids][: num_prompt + asked.num_greedy]
    hidden = model.hidden(torch.tensor([ids]))[0]  # (1, T) -> (T, C)
    table = model.logits(hidden[torch.tensor(asked.prefix_lengths) - 1]).double().log_softmax(-1).numpy()
    last = num_prompt + min(len(greedy_ids) + 1, asked.num_greedy) - 1
    return table, model.logits(hidden[num_prompt - 1 : last])


def greedy_agreement(logits: Tensor, greedy_ids: Sequence[int], end_ids: frozenset[int]) -> tuple[int, float]:
    """How many greedy tokens are the same, the end of a text being one, and by how many nats we differ after these.

    Args:
        logits: Ours after the prompt and each token of `greedy_ids`, as far as is compared, (G, V).
        greedy_ids: The runtime's, up to where it ended its text.
    """
    ours: list[int] = logits.argmax(dim=-1).tolist()
    same = num_same(ours, greedy_ids)
    if same == len(greedy_ids) < len(ours) and ours[same] in end_ids:
        same += 1
    if same == len(ours):
        return same, 0.0
    theirs = [greedy_ids[same]] if same < len(greedy_ids) else sorted(end_ids)
    return same, float(logits[same].max() - logits[same, theirs].max())


def _num_different(tokenizer: Tokenizer, texts: Sequence[str], answers: Answers) -> int | None:
    """Texts with other tokens than here; None where the runtime was not asked."""
    if answers.special_ids is None:
        return None
    special = [ids.tolist() for ids in tokenizer.encode_batch(texts, allow_special=True)]
    plain = special if answers.plain_ids is None else [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    theirs = zip(answers.special_ids, answers.plain_ids or answers.special_ids, strict=True)
    return sum(ours != found for ours, found in zip(zip(special, plain, strict=True), theirs, strict=True))


def compare(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Mean divergence and agreement of the most probable token, of log probabilities (P, V) twice."""
    found = found.astype(np.float64)
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))  # fp32 sums of theirs are not quite 1
    divergence = (np.exp(wanted) * (wanted - found)).sum(axis=1)
    return float(divergence.mean()), float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean())


def num_same(wanted: Sequence[int], found: Sequence[int]) -> int:
    """Elements before the first difference."""
    pairs = zip(wanted, found, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(found)))
