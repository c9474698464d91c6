"""A reward model: a number for each answer, learnt from which of two people preferred. Supplies batches and loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkling.align import preference
from inkling.config import Field, Section
from inkling.models import LanguageModel
from inkling.train.sequences import Sequences, Tokens, learnt_hidden
from inkling.train.stage import Setting, Stage, without_learning

VALUE_HEAD = "value_head"
"""Name of the module that turns hidden states into numbers; no part of the language model's own weights."""


class RewardSettings(Section):
    """Learning a reward model."""

    centering: float = Field(0.01, ge=0)
    """Keeps rewards around zero, which preferences alone leave open."""


def add_value_head(model: LanguageModel) -> None:
    """A linear layer from a hidden state to a number, zero at the start, unless the model has one."""
    if hasattr(model, VALUE_HEAD):
        return
    head = nn.Linear(model.config.hidden_size, 1).to(model.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.add_module(VALUE_HEAD, head)


def read_at_the_end(tokens: Tokens, eot_id: int) -> Tokens:
    """An answer whose number is read after its last token: where what follows it would be predicted."""
    return Tokens([*tokens.ids, eot_id], [False] * len(tokens.ids) + [True])


def rewards_of(model: LanguageModel, batch: Sequences) -> Tensor:
    """The number of each answer, (S) fp32, of answers that are read at their end."""
    hidden = learnt_hidden(model, batch)  # (S, C)
    head = getattr(model, VALUE_HEAD)
    values: Tensor = head(hidden).float()[:, 0]
    return values


class RewardModelStage(Stage):
    """Pairs of a chosen and a rejected answer, both read at their ends: Bradley-Terry."""

    what_the_loss_is = "loss, nats per pair"

    def __init__(
        self,
        items: Sequence[Sequence[Tokens]],
        validation: Sequence[Sequence[Tokens]],
        setting: Setting,
        settings: RewardSettings,
    ) -> None:
        super().__init__(items, validation, setting)
        self.settings = settings

    def begin(self, model: LanguageModel) -> None:
        """Give the model what turns it into a reward model."""
        add_value_head(model)

    def _losses(self, model: LanguageModel, batch: Sequences) -> Tensor:
        rewards = rewards_of(model, batch)
        chosen, rejected = rewards[0::2], rewards[1::2]
        won = chosen - rejected
        self.note({"margin": won, "accuracy": (won > 0).float(), "mean_reward": rewards})
        return preference.bradley_terry(chosen, rejected, centering=self.settings.centering)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Summed over pairs."""
        assert isinstance(model, LanguageModel)
        return self._losses(model, batch).sum()

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """The loss on validation pairs, and in how many the chosen answer has the higher reward."""
        total = 0.0
        with without_learning(model), self.noting_apart() as found:
            for batch in self.batches_of(range(len(self.validation)), self.validation):
                total += float(self._losses(model, batch).sum())
        return {"val_loss": total / len(self.validation), **{f"val_{name}": value for name, value in found.items()}}


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a reward model has beside a language model."""
    head = getattr(model, VALUE_HEAD)
    return {"weight": head.weight.detach(), "bias": head.bias.detach()}


def put_head(model: LanguageModel, weights: dict[str, Tensor]) -> None:
    """Make a language model the reward model that it was."""
    add_value_head(model)
    with torch.no_grad():
        getattr(model, VALUE_HEAD).load_state_dict(weights)
