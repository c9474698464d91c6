"""What a method of tuning supplies to the loop: batches, a loss, and what it is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inkling.models import LanguageModel
from inkling.train.branching import lay_out_branching, num_computed
from inkling.train.loop import Task
from inkling.train.sequences import Order, Sequences, TokenBudget, Tokens, in_micro_batches, lay_out
from inkling.train.world import ALONE, World


@dataclass
class Setting:
    """What all methods are given.

    Attributes:
        batch_size: Items in a step.
        budget: Tokens of a micro-batch.
        context: Tokens that the model sees at once.
        pack: Whether several sequences share a row.
        share: Whether what the sequences of an item begin with is computed once for them.
        world: The processes that train together; each takes its share of the items of a step.
        autocast: The precision in which losses are computed.
    """

    batch_size: int
    budget: TokenBudget
    context: int
    pack: bool
    seed: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    share: bool = False
    world: World = ALONE


def laid_out(items: Sequence[Sequence[Tokens]], setting: Setting) -> Sequences:
    """The sequences of some items as rows, on the device."""
    if setting.share:
        return lay_out_branching(items, setting.device)
    sequences = [one for item in items for one in item]
    return lay_out(sequences, context=setting.context, pack=setting.pack, device=setting.device)


class Stage(ABC):
    """A method at work on items, each of one or several sequences.

    Attributes:
        what_the_loss_is: For people, at its curve.
        items: The sequences of each item to learn from.
        warnings: What a person should be told, as it is found.
    """

    what_the_loss_is = "loss"
    begins_with_all_items = False
    """Whether `begin` looks at every item to learn from, so that it takes the longer the more there are."""

    def __init__(
        self, items: Sequence[Sequence[Tokens]], validation: Sequence[Sequence[Tokens]], setting: Setting
    ) -> None:
        self.items = items
        self.validation = validation
        self.setting = setting
        self.warnings: list[str] = []
        self.order = Order(len(items), setting.batch_size, setting.seed)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, float] = {}

    def begin(self, model: LanguageModel) -> None:  # noqa: B027 - most methods need nothing
        """Look at the model before anything changes, or give it what the method needs beside it."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Summed over the items of a micro-batch."""

    @abstractmethod
    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """Scores on the validation items."""

    def objective(self, scores: dict[str, float]) -> float:
        """What is to become small."""
        return scores["val_loss"]

    def batch(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> Any:
        """What `loss` takes, of these items."""
        return self.laid_out([items[number] for number in numbers])

    def size(self, step: int) -> float:
        """What the loss of a step is divided by."""
        return float(self.setting.batch_size)

    def num_tokens(self, step: int) -> float:
        """Tokens that were learnt in a step."""
        return float(sum(one.num_learnt for number in self.order.items(step) for one in self.items[number]))

    def task(self, **more: Any) -> Task:
        """For the loop."""
        learnt = [sum(one.num_learnt for one in item) for item in self.items]
        return Task(
            batch_fn=self.micro_batches,
            loss_fn=self.loss,
            tokens_per_step=max(1.0, self.setting.batch_size * sum(learnt) / max(1, len(learnt))),
            seed=self.setting.seed,
            tokens_fn=self.num_tokens,
            size_fn=self.size,
            halve=self.setting.budget.halve,
            measure_fn=self._measured_by_all,
            **more,
        )

    def micro_batches(self, step: int) -> Iterator[Any]:
        """Of a step, as a function of the step alone."""
        yield from self.batches_of(self.own(self.order.items(step)), self.items)

    def own(self, numbers: Sequence[int]) -> Sequence[int]:
        """This process's share of some items."""
        return numbers[self.setting.world.rank :: self.setting.world.size]

    def groups_of(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> list[list[int]]:
        """The numbers of the items of each micro-batch, the longest first: too little memory is found out at once."""
        setting, some = self.setting, [items[number] for number in numbers]
        totals = [num_computed(item) for item in some] if setting.share else None
        groups = in_micro_batches(
            some, setting.budget.tokens, context=setting.context, pack=setting.pack, totals=totals
        )
        return [[numbers[place] for place in group] for group in reversed(groups)]

    def batches_of(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> Iterator[Any]:
        """Items in micro-batches."""
        for group in self.groups_of(numbers, items):
            yield self.batch(group, items)

    def laid_out(self, items: Sequence[Sequence[Tokens]]) -> Sequences:
        """As rows, on the device."""
        return laid_out(items, self.setting)

    # ------------------------------------------------------------ numbers for the log

    def note(self, values: dict[str, Tensor], count: float | None = None) -> None:
        """Add to the means of this step: each value is summed over its items."""
        for name, value in values.items():
            detached = value.detach()
            self._sums[name] = self._sums.get(name, 0) + detached.sum()
            self._counts[name] = self._counts.get(name, 0.0) + (detached.numel() if count is None else count)

    @contextmanager
    def noting_apart(self) -> Iterator[dict[str, float]]:
        """What is noted in the block is put into the mapping, and not into the means of the step."""
        before = self._sums, self._counts
        self._sums, self._counts = {}, {}
        found: dict[str, float] = {}
        try:
            yield found
            found.update(self.measured())
        finally:
            self._sums, self._counts = before

    def _measured_by_all(self) -> dict[str, float]:
        """The same over all processes."""
        names = sorted(self._sums)
        both = torch.tensor(
            [[float(self._sums[name]), self._counts[name]] for name in names], device=self.setting.device
        )
        self.setting.world.sum_([both])
        self._sums, self._counts = {}, {}
        return {name: total / max(1.0, count) for name, (total, count) in zip(names, both.tolist(), strict=True)}

    def measured(self) -> dict[str, float]:
        """The means since last asked."""
        found = {name: float(total) / max(1.0, self._counts[name]) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found


@contextmanager
def without_learning(model: LanguageModel) -> Iterator[None]:
    """The model in evaluation mode and without gradients for the time of the block."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
