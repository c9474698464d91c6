"""How far a model that is tuned has gone from the model at its start: KL divergence along given answers.

Letters in shapes: N places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from inkling.models import LanguageModel
from inkling.train.sequences import Tokens, learnt_hidden
from inkling.train.stage import Stage, without_learning

MAX_PLACES = 256
"""At which the next token is looked at: enough for a mean, and few beside the rest of an evaluation."""
MAX_BYTES = 32 << 20
"""Of the log-probabilities of all tokens at these places, which are kept in memory and in checkpoints."""


def next_token_log_probs(stage: Stage, model: LanguageModel, answers: Sequence[Tokens]) -> Tensor:
    """Log-probabilities of all tokens where those of answers are predicted, (N, V); of places spread over all answers
    where there are more than `MAX_PLACES`, or than fit into `MAX_BYTES`."""
    limit = max(1, min(MAX_PLACES, MAX_BYTES // (4 * model.config.vocab_size)))
    items = [[one] for one in spread_places(answers, limit)]
    found = [torch.empty(0, model.config.vocab_size)] * max(1, len(items))
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


def spread_places(answers: Sequence[Tokens], limit: int) -> list[Tokens]:
    """The answers with every k-th of their learnt tokens still learnt, k such that at most `limit` are; answers that
    are left without one are left out."""
    every = -(-sum(answer.num_learnt for answer in answers) // limit)
    found, before = [], 0
    for answer in answers:
        counts = list(accumulate(answer.is_learnt, initial=before))  # learnt tokens in front of each
        kept = [flag and count % every == 0 for flag, count in zip(answer.is_learnt, counts, strict=False)]
        before = counts[-1]
        if any(kept):
            found.append(replace(answer, is_learnt=kept))
    return found
