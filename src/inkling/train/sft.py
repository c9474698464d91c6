"""Supervised fine-tuning: next-token prediction of the answers. Supplies batches and loss, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from inkling.models import LanguageModel
from inkling.train.cross_entropy import summed_cross_entropy
from inkling.train.sequences import Sequences, Tokens, learnt_hidden
from inkling.train.stage import Setting, Stage, without_learning


def answer_loss(model: nn.Module, batch: Sequences) -> Tensor:
    """Summed nats of the learnt tokens."""
    assert isinstance(model, LanguageModel)
    hidden = learnt_hidden(model, batch)
    return summed_cross_entropy(hidden, model.head_weight, batch.learnt_ids, model.config.logit_softcap)


class SupervisedStage(Stage):
    """The loss of a step is the mean over all its learnt tokens, however they are laid out.

    Args:
        sequences: Conversations.
        bytes_of_token: Bytes that each token stands for, for bits per byte.
    """

    what_the_loss_is = "loss, nats per learnt token"

    def __init__(
        self, sequences: Sequence[Tokens], validation: Sequence[Tokens], setting: Setting, bytes_of_token: Sequence[int]
    ) -> None:
        super().__init__([[one] for one in sequences], [[one] for one in validation], setting)
        self._num_bytes = sum(
            bytes_of_token[token]
            for one in validation
            for token, learnt in zip(one.ids, one.is_learnt, strict=True)
            if learnt
        )

    def size(self, step: int) -> float:
        """The learnt tokens of a step."""
        return float(sum(self.items[number][0].num_learnt for number in self.order.items(step)))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Summed nats."""
        return answer_loss(model, batch)

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """Nats per learnt token, and bits per byte of the answers' text."""

        with without_learning(model):
            batches = self.batches_of(range(len(self.validation)), self.validation)
            nats = sum(float(answer_loss(model, batch)) for batch in batches)
        num_learnt = sum(item[0].num_learnt for item in self.validation)
        bits = nats / math.log(2) / max(1, self._num_bytes)
        return {"val_loss": nats / num_learnt, "val_bits_per_byte": bits}
