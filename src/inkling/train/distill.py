"""Distillation: a small model learns what a larger one thinks of every next token. Supplies batches and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inkling.align import distillation
from inkling.config import Field, Section
from inkling.models import LanguageModel
from inkling.tensor_files import read_tensors, write_tensors
from inkling.train.sequences import LOGITS_BYTES, Sequences, Tokens, learnt_hidden
from inkling.train.stage import Setting, Stage, without_learning


class DistillSettings(Section):
    """Distillation."""

    teacher: Path | None = None
    """A run with the same tokenizer, most often a larger one."""
    top_k: int = Field(32, ge=1)
    """Of the teacher's distribution, so many of the likeliest tokens; the rest counts as one."""
    temperature: float = Field(1.0, gt=0)
    """Of both distributions: more shows what the teacher holds for unlikely."""
    weight: float = Field(0.9, ge=0, le=1)
    """Of the teacher's distribution; the rest is for the answers themselves."""
    logits: Literal["live", "stored"] = "live"
    """Computed in each step, or once before the first and kept in the run."""


@dataclass(frozen=True)
class _Batch:
    """Sequences, and of each learnt token the teacher's likeliest ids and their log-probabilities, (N, K)."""

    sequences: Sequences
    ids: Tensor
    log_probs: Tensor


class DistillStage(Stage):
    """Conversations, whose answers the teacher thinks about.

    Args:
        teacher: In evaluation mode, on the same device.
        store: File of what the teacher thinks, for stored logits.
    """

    what_the_loss_is = "loss, nats per learnt token"

    def __init__(
        self,
        sequences: Sequence[Tokens],
        validation: Sequence[Tokens],
        setting: Setting,
        settings: DistillSettings,
        teacher: LanguageModel,
        store: Path,
    ) -> None:
        super().__init__([[one] for one in sequences], [[one] for one in validation], setting)
        self.settings, self._teacher, self._store = settings, teacher, store
        self.begins_with_all_items = settings.logits == "stored"
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, model: LanguageModel) -> None:
        """Ask the teacher about all sequences, or find what it said before, where that is to be stored."""
        if self.settings.logits == "live":
            return
        world = self.setting.world
        if not world.is_main:
            world.wait()  # until the first process has written it
        counts = [item[0].num_learnt for item in self.items]
        if self._store.is_file():
            tensors, _ = read_tensors(self._store, verify=True)
        else:
            parts: list[tuple[Tensor, Tensor] | None] = [None] * len(self.items)
            for group in self.groups_of(range(len(self.items)), self.items):
                batch = self.laid_out([self.items[number] for number in group])
                ids, values = self._ask(batch)
                lengths = [counts[number] for number in group]
                each = zip(group, torch.split(ids, lengths), torch.split(values, lengths), strict=True)
                for number, some, of in each:
                    parts[number] = (some.int().cpu(), of.bfloat16().cpu())
            known = [part for part in parts if part is not None]
            tensors = {"ids": torch.cat([a for a, _ in known]), "log_probs": torch.cat([b for _, b in known])}
            write_tensors(self._store, tensors)
        if world.is_main:
            world.wait()
        both = zip(torch.split(tensors["ids"], counts), torch.split(tensors["log_probs"], counts), strict=True)
        self._stored = dict(enumerate(both))

    def _ask(self, batch: Sequences) -> tuple[Tensor, Tensor]:
        """The teacher's likeliest tokens where each learnt one is predicted, (N, K) twice."""
        found = []
        with torch.no_grad():
            hidden = learnt_hidden(self._teacher, batch)
            for part in torch.split(hidden, _rows(self._teacher)):
                logits = self._teacher.logits(part)
                found.append(distillation.top_of(logits, self.settings.top_k, self.settings.temperature))
        return torch.cat([ids for ids, _ in found]), torch.cat([values for _, values in found])

    def size(self, step: int) -> float:
        """The learnt tokens of a step."""
        return float(sum(self.items[number][0].num_learnt for number in self.order.items(step)))

    def batch(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> _Batch:
        """Sequences with what the teacher thinks of them."""
        sequences = self.laid_out([items[number] for number in numbers])
        if self._stored and items is self.items:
            device = self.setting.device
            ids = torch.cat([self._stored[number][0] for number in numbers]).long().to(device)
            return _Batch(sequences, ids, torch.cat([self._stored[number][1] for number in numbers]).float().to(device))
        with self.setting.autocast():
            return _Batch(sequences, *self._ask(sequences))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Summed over learnt tokens: the divergence from the teacher, and the nats of the answers themselves."""
        assert isinstance(model, LanguageModel)
        divergence, nats = self._parts(model, batch)
        weight = self.settings.weight
        return weight * divergence + (1 - weight) * nats

    def _parts(self, model: LanguageModel, batch: _Batch) -> tuple[Tensor, Tensor]:
        sequences = batch.sequences
        hidden = learnt_hidden(model, sequences)
        divergences, nats = [], []
        rows = _rows(model)
        pieces = zip(
            torch.split(hidden, rows),
            torch.split(batch.ids, rows),
            torch.split(batch.log_probs, rows),
            torch.split(sequences.learnt_ids, rows),
            strict=True,
        )
        for part, ids, log_probs, some in pieces:
            logits = model.logits(part).float()
            temperature = self.settings.temperature
            divergences.append(distillation.distillation(logits, ids, log_probs, temperature=temperature).sum())
            nats.append(nn.functional.cross_entropy(logits, some, reduction="sum"))
        count = float(len(sequences.learnt_ids))
        self.note({"divergence": torch.stack(divergences)}, count)
        return torch.stack(divergences).sum(), torch.stack(nats).sum()

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """Nats per learnt token, and how far the model is from its teacher."""
        divergence = nats = 0.0
        with without_learning(model), self.noting_apart():
            for batch in self.batches_of(range(len(self.validation)), self.validation):
                one, other = self._parts(model, batch)
                divergence, nats = divergence + float(one), nats + float(other)
        count = sum(item[0].num_learnt for item in self.validation)
        return {"val_loss": nats / count, "val_divergence": divergence / count}

    def objective(self, scores: dict[str, float]) -> float:
        """The loss that is learnt from, on validation rows."""
        weight = self.settings.weight
        return weight * scores["val_divergence"] + (1 - weight) * scores["val_loss"]


def _rows(model: LanguageModel) -> int:
    return max(1, LOGITS_BYTES // (4 * model.config.vocab_size))
