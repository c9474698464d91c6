"""How far a model that is tuned has gone from the model at its start: KL divergence along given answers.

Letters in shapes: N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.models import LanguageModel
from inkling.train.sequences import Tokens, learnt_hidden
from inkling.train.stage import Stage, without_learning

MAX_PLACES = 1024
MAX_BYTES = 32 << 20
"""Of the log-probabilities of all tokens at all places, which are kept in memory and in checkpoints."""


def next_token_log_probs(stage: Stage, model: LanguageModel, answers: Sequence[Tokens]) -> Tensor:
    """Log-probabilities of all tokens where those of answers are predicted, (N, V); of the first places alone where
    there are many."""
    limit = max(1, min(MAX_PLACES, MAX_BYTES // (4 * model.config.vocab_size)))
    items = [[one] for one in _first_places(answers, limit)]
    found = [torch.empty(0)] * len(items)
    with without_learning(model):
        for numbers in stage.groups_of(range(len(items)), items):
            batch = stage.laid_out([items[number] for number in numbers])
            log_probs = model.logits(learnt_hidden(model, batch)).float().log_softmax(-1)
            for number, part in zip(numbers, torch.split(log_probs, batch.lengths.tolist()), strict=True):
                found[number] = part
    return torch.cat(found)


def kl_divergence(log_probs: Tensor, start: Tensor) -> float:
    """KL(model ‖ model at the start) of the next token in nats, a mean over places: (N, V), (N, V) -> number.

    The sum over the vocabulary is exact. The places are those of answers that were given, so that this is no estimate
    of the divergence of the answers that the model would draw.
    """
    return float(F.kl_div(start, log_probs, log_target=True, reduction="none").sum(-1).mean())


def _first_places(answers: Sequence[Tokens], limit: int) -> list[Tokens]:
    """As many answers as there are places for; of the last one, its beginning."""
    found = []
    for answer in answers:
        if limit <= 0:
            break
        places = [place for place, is_learnt in enumerate(answer.is_learnt) if is_learnt][:limit]
        limit -= len(places)
        kept = set(places)
        found.append(replace(answer, is_learnt=[place in kept for place in range(len(answer.ids))]))
    return found
