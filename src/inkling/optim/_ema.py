"""Exponential moving average of the weights: often better than the weights themselves when text is seen many times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inkling.config import Field, Section


class AverageSettings(Section):
    """Moving average of the weights. The better of the two is kept as the best."""

    decay: float | None = Field(None, ge=0, lt=1)
    """Share of the average that is kept in a step, such as 0.999; 0 keeps no average. Default: 0.99 in pretraining on a
    text that is passed over four times or more, else none."""


class WeightAverage:
    """Averages the parameters of a model. Early on it averages over fewer steps: at most (1 + n) / (10 + n) is kept."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._num_updates = torch.zeros((), dtype=torch.int64)
        self._names = [name for name, _ in model.named_parameters()]
        self._averages = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards the model's weights. Costs one pass over the weights."""
        self._num_updates += 1
        n = self._num_updates.item()
        decay = min(self._decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(self._averages, list(model.parameters()), 1 - decay)

    def weights(self) -> dict[str, Tensor]:
        """The averages by parameter name: a state dict."""
        return dict(zip(self._names, self._averages, strict=True))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averages into the model for the time of the block."""
        own = [parameter.detach().clone() for parameter in model.parameters()]
        try:
            self._put(model, self._averages)
            yield
        finally:
            self._put(model, own)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {**self.weights(), "num_updates": self._num_updates}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned."""
        self._num_updates.copy_(state["num_updates"])
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state[name])

    @staticmethod
    @torch.no_grad()
    def _put(model: nn.Module, weights: list[Tensor]) -> None:
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(weight)
