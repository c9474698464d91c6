"""Learning from preferences and feedback: DPO, ORPO, SimPO and KTO. Supplies batches and losses, and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inkling import peft
from inkling.align import preference
from inkling.config import Field, Section
from inkling.models import LanguageModel
from inkling.train.divergence import kl_divergence, next_token_log_probs
from inkling.train.loop import Task
from inkling.train.sequences import Sequences, Tokens, by_sequence, token_logprobs
from inkling.train.stage import Setting, Stage, without_learning
from inkling.train.world import ALONE, World

PairMethod = Literal["dpo", "orpo", "simpo"]
DISPLACED = -1.0
"""Chosen answers that became so many nats less likely, on average, are a warning."""


class PreferenceSettings(Section):
    """Learning from preferences."""

    beta: float | None = Field(None, gt=0)
    """How strongly answers are told apart; in dpo and kto, how near to the reference the model stays. Default: dpo and
    kto 0.1, orpo 0.1, simpo 2."""
    loss: preference.PreferenceLoss = "sigmoid"
    """Of dpo. robust and the smoothed sigmoid expect wrong labels; hinge and ipo stop at a margin."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the pairs that may be the wrong way round."""
    length_normalised: bool = False
    """dpo: compare mean log-probabilities of tokens, so that long answers do not win by length."""
    sft_weight: float | None = Field(None, ge=0)
    """Also learn the chosen answers as in sft, with this weight: without it, the model can learn to tell answers apart
    while it forgets how to give any. Default: 1 (kto: 0)."""
    margin: float = Field(0.5, ge=0)
    """simpo: by how much the chosen answer should win."""
    bad_weight: float = Field(1.0, gt=0)
    """kto: what an answer that was found bad counts beside a good one."""
    reference: Literal["precomputed", "adapter-off"] = "precomputed"
    """dpo and kto: log-probabilities of the model at the start are computed once, or each time with the adapter off."""

    def beta_of(self, method: str) -> float:
        """As given, or what suits the method."""
        return self.beta if self.beta is not None else 2.0 if method == "simpo" else 0.1

    def sft_weight_of(self, method: str) -> float:
        """As given, or what suits the method."""
        return self.sft_weight if self.sft_weight is not None else 0.0 if method == "kto" else 1.0


@dataclass(frozen=True)
class Compared:
    """A micro-batch: sequences, and what the reference thinks of them.

    Attributes:
        reference: Summed log-probability of each sequence, (S).
        sft_scale: What the summed nats of chosen answers are multiplied with, so that the step's loss holds their mean.
        is_good: Of each answer, for feedback, (S/2).
        divergence: Between policy and reference, for feedback.
    """

    sequences: Sequences
    reference: Tensor
    sft_scale: float = 0.0
    is_good: Tensor | None = None
    divergence: Tensor | None = None


class ReferencedStage(Stage):
    """A stage that compares with the model at its start."""

    def __init__(
        self,
        items: Sequence[Sequence[Tokens]],
        validation: Sequence[Sequence[Tokens]],
        setting: Setting,
        settings: PreferenceSettings,
        method: str,
    ) -> None:
        super().__init__(items, validation, setting)
        self.settings = settings
        self.beta = settings.beta_of(method)
        self.sft_weight = settings.sft_weight_of(method)
        self.needs_reference = method in ("dpo", "kto")
        self.begins_with_all_items = self.needs_reference and settings.reference == "precomputed"
        self._model: LanguageModel | None = None
        self._reference: dict[str, Tensor] = {}

    def begin(self, model: LanguageModel) -> None:
        """Take the model as it is as the reference; of validation always, to see what becomes of likelihoods."""
        self._model = model
        self._reference = {
            "validation": self._sums_of(model, self.validation),
            "next_token": next_token_log_probs(self, model, self._followed()).cpu(),
        }
        if self.begins_with_all_items:
            self._reference["train"] = self._sums_of(model, self.items)

    def task(self, **more: Any) -> Task:
        """For the loop; the reference is kept in checkpoints, since the model is another one by then."""

        def restore(state: dict[str, Tensor]) -> None:
            self._reference = dict(state)

        return super().task(state_fn=lambda: self._reference, restore_fn=restore, **more)

    def _sums_of(self, model: LanguageModel, items: Sequence[Sequence[Tokens]]) -> Tensor:
        """Summed log-probabilities of all sequences, (items, sequences of each)."""
        found = torch.zeros(len(items), 2, device=self.setting.device)
        with without_learning(model):
            for numbers in self.groups_of(self.own(range(len(items))), items):
                batch = self.laid_out([items[number] for number in numbers])
                sums = by_sequence(token_logprobs(model, batch), batch)
                found[numbers] = sums.view(len(numbers), -1).float()
        self.setting.world.sum_([found])
        return found.cpu()

    def reference_of(self, sequences: Sequences, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> Tensor:
        """Summed log-probabilities by the reference, (S); zeros where the method has none."""
        table = self._reference.get("train" if items is self.items else "validation")
        if table is not None:
            return table[list(numbers)].flatten().to(self.setting.device)
        if not self.needs_reference:
            return torch.zeros(sequences.num, device=self.setting.device)
        assert self._model is not None
        with without_learning(self._model), peft.disabled(self._model):
            return by_sequence(token_logprobs(self._model, sequences), sequences)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Summed over items, the nats of the answers that are imitated among it."""
        assert isinstance(model, LanguageModel)
        assert isinstance(batch, Compared)
        losses, nats = self._losses(model, batch)
        return losses.sum() + batch.sft_scale * nats

    @abstractmethod
    def _losses(self, model: LanguageModel, batch: Compared) -> tuple[Tensor, Tensor]:
        """The loss of each item, and the summed nats of the answers that are imitated."""

    def _followed(self) -> list[Tokens]:
        """The validation answers along which the divergence from the start is measured."""
        return [item[0] for item in self.validation]

    def _divergence_from_start(self, model: LanguageModel) -> dict[str, float]:
        """As a score; nothing for a run that began before its start was kept."""
        if "next_token" not in self._reference:
            return {}
        start = self._reference["next_token"].to(self.setting.device)
        return {"val_kl": kl_divergence(next_token_log_probs(self, model, self._followed()), start)}

    def _warn_of_displacement(self, gain: float, whose: str, meanwhile: str = "") -> None:
        """Said when good answers have become unlikely."""
        if gain < DISPLACED:
            self.warnings.append(
                f"{whose} answers have become {-gain:.1f} nats less likely than at the start{meanwhile}: the model "
                "forgets how to answer well. Raise --preference.sft-weight or --preference.beta, or lower the rate"
            )


class PreferenceStage(ReferencedStage):
    """Pairs of a chosen and a rejected answer."""

    def __init__(
        self,
        items: Sequence[Sequence[Tokens]],
        validation: Sequence[Sequence[Tokens]],
        setting: Setting,
        settings: PreferenceSettings,
        method: PairMethod,
    ) -> None:
        super().__init__(items, validation, setting, settings, method)
        self.method = method

    def micro_batches(self, step: int) -> Iterator[Compared]:
        """Of a step."""
        numbers = self.order.items(step)
        num_chosen = sum(self.items[number][0].num_learnt for number in numbers)
        scale = self.sft_weight * len(numbers) / num_chosen
        for batch in self.batches_of(self.own(numbers), self.items):
            yield Compared(batch.sequences, batch.reference, scale)

    def batch(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> Compared:
        """Pairs side by side: chosen, rejected, chosen, …"""
        sequences = self.laid_out([items[number] for number in numbers])
        return Compared(sequences, self.reference_of(sequences, numbers, items))

    def _losses(self, model: LanguageModel, batch: Compared) -> tuple[Tensor, Tensor]:
        """The loss of each pair, and the summed nats of chosen answers."""
        sequences, settings = batch.sequences, self.settings
        log_probs = by_sequence(token_logprobs(model, sequences), sequences)  # (S)
        lengths = sequences.lengths
        chosen, rejected = log_probs[0::2], log_probs[1::2]
        reference_chosen, reference_rejected = batch.reference[0::2], batch.reference[1::2]
        mean_chosen, mean_rejected = chosen / lengths[0::2], rejected / lengths[1::2]
        match self.method:
            case "dpo":
                both = [chosen, rejected, reference_chosen, reference_rejected]
                if settings.length_normalised:
                    both = [one / lengths[number % 2 :: 2] for number, one in enumerate(both)]
                kind, smoothing = settings.loss, settings.label_smoothing
                losses = preference.dpo(*both, beta=self.beta, kind=kind, label_smoothing=smoothing)
                won = self.beta * ((both[0] - both[1]) - (both[2] - both[3]))
            case "orpo":
                losses = preference.orpo(mean_chosen, mean_rejected, beta=self.beta)
                won = mean_chosen - mean_rejected
            case "simpo":
                losses = preference.simpo(
                    mean_chosen,
                    mean_rejected,
                    beta=self.beta,
                    margin=settings.margin,
                    label_smoothing=settings.label_smoothing,
                )
                won = self.beta * (mean_chosen - mean_rejected)
        values = {
            "preference_loss": losses,
            "margin": won,
            "accuracy": (won > 0).float() + 0.5 * (won == 0),
            "chosen_nats": -mean_chosen,
        }
        if self.needs_reference or not torch.is_grad_enabled():  # others have one for validation alone
            values |= {"chosen_gain": chosen - reference_chosen, "rejected_gain": rejected - reference_rejected}
        self.note(values)
        return losses, -chosen.sum()

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """The same loss on validation pairs, with how often the chosen answer wins, and what became of its likelihood.

        The gains are how many nats likelier answers are than at the start.
        """
        total = nats = 0.0
        with without_learning(model), self.noting_apart() as found:
            for batch in self.batches_of(range(len(self.validation)), self.validation):
                losses, of_chosen = self._losses(model, batch)
                total, nats = total + float(losses.sum()), nats + float(of_chosen)
        num_chosen = sum(item[0].num_learnt for item in self.validation)
        loss = total / len(self.validation) + self.sft_weight * nats / num_chosen
        scores = {"val_loss": loss, **{f"val_{name}": value for name, value in found.items()}}
        scores |= self._divergence_from_start(model)
        told_apart = f", while {scores['val_accuracy']:.0%} of the pairs are told apart"
        self._warn_of_displacement(scores["val_chosen_gain"], "chosen", told_apart)
        return scores


class FeedbackStage(ReferencedStage):
    """Single answers that were found good or bad: KTO. An item is an answer, and the prompt with another's answer.

    Args:
        is_good: Of each item to learn from, and of each for validation.
    """

    def __init__(
        self,
        items: Sequence[Sequence[Tokens]],
        validation: Sequence[Sequence[Tokens]],
        setting: Setting,
        settings: PreferenceSettings,
        is_good: tuple[Sequence[bool], Sequence[bool]],
    ) -> None:
        super().__init__(items, validation, setting, settings, "kto")
        self._is_good = is_good

    def micro_batches(self, step: int) -> Iterator[Compared]:
        """Of a step; the divergence is measured first, on prompts with answers that belong to others."""
        assert self._model is not None
        numbers = self.order.items(step)
        yield from self._with_divergence(self._model, numbers, self.own(numbers), self.items, self.setting.world)

    def batch(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> Compared:
        """Answers and mismatched answers side by side."""
        sequences = self.laid_out([items[number] for number in numbers])
        flags = torch.tensor(self._flags(numbers, items), device=self.setting.device)
        return Compared(sequences, self.reference_of(sequences, numbers, items), is_good=flags)

    def _with_divergence(
        self,
        model: LanguageModel,
        numbers: Sequence[int],
        own: Sequence[int],
        items: Sequence[Sequence[Tokens]],
        world: World,
    ) -> Iterator[Compared]:
        """The own ones of some items; the divergence is that of all of them."""
        batches: list[Compared] = list(self.batches_of(own, items))
        gains: list[Tensor] = []
        with without_learning(model):
            for batch in batches:
                log_probs = by_sequence(token_logprobs(model, batch.sequences), batch.sequences)
                gains.append((log_probs - batch.reference)[1::2])
        total = torch.cat(gains).sum()
        world.sum_([total])
        divergence = (total / len(numbers)).clamp(min=0)
        nats = sum(items[n][0].num_learnt for n, flag in zip(numbers, self._flags(numbers, items), strict=True) if flag)
        scale = self.sft_weight * len(numbers) / max(1, nats)
        for batch in batches:
            yield Compared(batch.sequences, batch.reference, scale, batch.is_good, divergence)

    def _flags(self, numbers: Sequence[int], items: Sequence[Sequence[Tokens]]) -> list[bool]:
        good = self._is_good[0 if items is self.items else 1]
        return [good[number] for number in numbers]

    def _losses(self, model: LanguageModel, batch: Compared) -> tuple[Tensor, Tensor]:
        assert batch.is_good is not None
        assert batch.divergence is not None
        sequences = batch.sequences
        log_probs = by_sequence(token_logprobs(model, sequences), sequences)[0::2]
        gains, good = log_probs - batch.reference[0::2], batch.is_good
        losses = preference.kto(gains, good, batch.divergence, beta=self.beta, bad_weight=self.settings.bad_weight)
        self.note({"divergence": batch.divergence})
        self.note({"good_gain": gains * good}, float(good.sum()))
        self.note({"bad_gain": gains * ~good}, float((~good).sum()))
        return losses, -(log_probs * good).sum()

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """The same loss on validation answers, and how much likelier good and bad ones have become, in nats."""
        total = 0.0
        with without_learning(model), self.noting_apart() as found:
            every = range(len(self.validation))
            for batch in self._with_divergence(model, every, every, self.validation, ALONE):
                total += float(self._losses(model, batch)[0].sum())
        scores = {"val_loss": total / len(self.validation), **{f"val_{name}": one for name, one in found.items()}}
        scores |= self._divergence_from_start(model)
        self._warn_of_displacement(scores["val_good_gain"], "good")
        return scores
