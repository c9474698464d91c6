"""Reinforcement learning from rewards of answers that the model writes itself: GRPO, RLOO and PPO.

Supplies batches, which are rollouts, and losses. Letters in shapes: B answers, N learnt tokens of a micro-batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inkling import peft
from inkling.align import policy
from inkling.models import LanguageModel
from inkling.train.branching import num_computed
from inkling.train.loop import Task
from inkling.train.reward_model import VALUE_HEAD, add_value_head
from inkling.train.rollouts import Prompt, RewardFn, Rollout, RolloutFn, RolloutSettings, diagnosis, judged_answers
from inkling.train.sequences import Sampling, Sequences, Tokens, by_sequence, token_logprobs
from inkling.train.stage import Setting, Stage, without_learning

ReinforceMethod = Literal["grpo", "rloo", "ppo"]
_WINDOW = 20


@dataclass
class _Experience:
    """The answers of a step, and what is learnt from them. Lists have an entry for each answer.

    Attributes:
        tokens: Prompts with their answers.
        advantages: Of each learnt token.
        old: Log-probabilities when they were drawn.
        reference: The same of the model at the start; empty where nothing asks for it.
        values: What the value head said then, and returns: empty but for ppo.
        num_learnt: Tokens that are learnt in the step, by all processes.
    """

    tokens: list[Tokens]
    advantages: list[Tensor]
    old: list[Tensor] = field(default_factory=list)
    reference: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    returns: list[Tensor] = field(default_factory=list)
    num_learnt: float = 0.0


@dataclass(frozen=True)
class _Batch:
    """Some answers of the step: (N) each, or empty."""

    sequences: Sequences
    advantages: Tensor
    old: Tensor
    reference: Tensor
    values: Tensor
    returns: Tensor


class ReinforceStage(Stage):
    """An item is a prompt; what is learnt from are the answers that the model gives as it is.

    Args:
        rollout_fn: Lets the model answer.
        reward_fn: What its answers are worth.
    """

    what_the_loss_is = "loss"

    def __init__(
        self,
        prompts: Sequence[Prompt],
        validation: Sequence[Prompt],
        setting: Setting,
        settings: RolloutSettings,
        method: ReinforceMethod,
        *,
        rollout_fn: RolloutFn,
        reward_fn: RewardFn,
    ) -> None:
        super().__init__([[Tokens(one.ids, [False] * len(one.ids))] for one in prompts], [], setting)
        self.prompts, self.validation_prompts = prompts, validation
        self.settings, self.method = settings, method
        self.sampling = Sampling(settings.temperature, settings.top_k)
        self._rollout_fn, self._reward_fn = rollout_fn, reward_fn
        self._model: LanguageModel | None = None
        self._reference: LanguageModel | None = None
        self._kl = torch.tensor(settings.kl, dtype=torch.float64)
        self._rollout_number = -1
        self._experience = _Experience([], [])
        self._recent: list[dict[str, float]] = []

    def begin(self, model: LanguageModel) -> None:
        """Take the model as it is as the reference, where one is asked for."""
        self._model = model
        if self.method == "ppo":
            add_value_head(model)
        if self._wants_reference and not peft.has_adapters(model):
            self._reference = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()

    @property
    def _wants_reference(self) -> bool:
        return self.settings.kl > 0

    @property
    def _remembers(self) -> bool:
        """Whether what was likely when answers were drawn has to be kept."""
        return self.settings.updates > 1 or self.method == "ppo" or self._wants_reference

    def task(self, **more: Any) -> Task:
        """For the loop; answers that several steps learn from are kept in checkpoints."""
        return super().task(state_fn=self._state, restore_fn=self._restore, **more)

    def num_tokens(self, step: int) -> float:
        """Tokens of the answers that were learnt from."""
        return self._experience.num_learnt

    def size(self, step: int) -> float:
        """Losses come as shares of the step's mean."""
        return 1.0

    def objective(self, scores: dict[str, float]) -> float:
        """The reward of answers to validation prompts, negative."""
        return -scores["val_reward"]

    # ------------------------------------------------------------ rollouts

    def micro_batches(self, step: int) -> Iterator[_Batch]:
        """Answers of the model as it is, or those of the step before where several learn from the same."""
        number = step // self.settings.updates
        if number != self._rollout_number:
            self._experience = self._roll_out(number)
            self._rollout_number = number
        for parts in self._in_parts(self._experience.tokens):
            yield self._batch_of(parts)

    def _in_parts(self, tokens: Sequence[Tokens]) -> Iterator[list[list[int]]]:
        """The numbers of the answers in each micro-batch; those that share the computed prompt are together."""
        parts: list[list[int]] = []
        for number in range(len(tokens)):
            part = [*parts[-1], number] if self.setting.share and number % self.settings.group_size else [number]
            if len(part) > 1 and num_computed([tokens[one] for one in part]) <= self.setting.budget.tokens:
                parts[-1] = part
            else:
                parts.append([number])
        items = [[tokens[number] for number in part] for part in parts]
        for group in self.groups_of(range(len(items)), items):
            yield [parts[place] for place in group]

    def _roll_out(self, number: int) -> _Experience:
        assert self._model is not None
        model, settings = self._model, self.settings
        numbers, size = self.order.items(number), settings.group_size
        prompts = [self.prompts[n] for n in self.own(numbers) for _ in range(size)]
        first = (self.setting.seed * 1_000_003 + number) * len(numbers) * size
        places = [place * size + at for place in self.own(range(len(numbers))) for at in range(size)]
        with without_learning(model), self.setting.autocast():
            seeds = [(first + place) % 2**31 for place in places]
            rollouts = self._rollout_fn(model, [one.ids for one in prompts], self.sampling, settings.max_tokens, seeds)
        parts = self._reward_fn(prompts, [one.text for one in rollouts])
        rewards = torch.tensor([sum(values) for values in zip(*parts.values(), strict=True)], dtype=torch.float64)
        self._note_rollouts(rollouts, rewards, parts)
        tokens = [
            Tokens(
                [*prompt.ids, *one.token_ids],
                [*[False] * len(prompt.ids), *[one.is_finished or settings.learn_truncated] * len(one.token_ids)],
            )
            for prompt, one in zip(prompts, rollouts, strict=True)
        ]
        learnt = torch.tensor(float(sum(one.num_learnt for one in tokens)), device=self.setting.device)
        self.setting.world.sum_([learnt])
        experience = _Experience(tokens, [], num_learnt=float(learnt))
        if self._remembers:
            self._remember(model, experience)
        self._weigh(experience, rewards)
        return experience

    def _note_rollouts(self, rollouts: list[Rollout], rewards: Tensor, parts: dict[str, list[float]]) -> None:
        groups = rewards.view(-1, self.settings.group_size)
        without_signal = (groups.amax(1) - groups.amin(1) < 1e-9).double()
        numbers = {
            "reward": rewards,
            "reward_spread": groups.std(1),
            "no_signal": without_signal,
            "length": torch.tensor([float(len(one.token_ids)) for one in rollouts]),
            "truncated": torch.tensor([float(not one.is_finished) for one in rollouts]),
            **({f"reward/{name}": torch.tensor(values) for name, values in parts.items()} if len(parts) > 1 else {}),
        }
        self.note(numbers)
        means = {name: float(values.double().mean()) for name, values in numbers.items()}
        self._recent = [*self._recent[1 - _WINDOW :], means]

    def _remember(self, model: LanguageModel, experience: _Experience) -> None:
        """Fill in what is known of the answers before the model changes."""
        tokens = experience.tokens
        wanted = {"old": True, "reference": self._wants_reference, "values": self.method == "ppo"}
        found: dict[str, list[Any]] = {name: [None] * len(tokens) for name, is_wanted in wanted.items() if is_wanted}
        with without_learning(model), self.setting.autocast():
            for parts in self._in_parts(tokens):
                sequences = self.laid_out([[tokens[number] for number in part] for part in parts])
                lengths = sequences.lengths.tolist()
                each: dict[str, Tensor] = {}
                if wanted["values"]:
                    each["old"], each["values"] = self._logprobs_and_values(model, sequences)
                else:
                    each["old"] = token_logprobs(model, sequences, self.sampling)
                if wanted["reference"]:
                    each["reference"] = self._reference_logprobs(model, sequences)
                for name, values in each.items():
                    numbers = [number for part in parts for number in part]
                    for number, some in zip(numbers, torch.split(values.float(), lengths), strict=True):
                        found[name][number] = some
        for name, known in found.items():
            setattr(experience, name, known)

    def _reference_logprobs(self, model: LanguageModel, sequences: Sequences) -> Tensor:
        if self._reference is not None:
            return token_logprobs(self._reference, sequences, self.sampling)
        with peft.disabled(model):
            return token_logprobs(model, sequences, self.sampling)

    def _weigh(self, experience: _Experience, rewards: Tensor) -> None:
        """From rewards to the advantage of each token."""
        settings, lengths = self.settings, [one.num_learnt for one in experience.tokens]
        divergences = [old - reference for old, reference in zip(experience.old, experience.reference, strict=False)]
        if divergences:
            per_token = torch.cat(divergences)
            self.note({"divergence": per_token})
            if settings.kl_target is not None:
                total = per_token.sum()
                self.setting.world.sum_([total])
                mean = float(total) / max(1.0, experience.num_learnt)
                self._kl.fill_(policy.next_coefficient(float(self._kl), mean, settings.kl_target))
        kl = float(self._kl)
        match self.method:
            case "grpo":
                whole = policy.group_advantages(rewards, settings.group_size, by_spread=settings.by_spread)
                experience.advantages = [value.float().expand(n) for value, n in zip(whole, lengths, strict=True)]
            case "rloo":
                if divergences:  # part of the reward here, as in the paper
                    rewards = rewards - kl * torch.stack([one.double().sum().cpu() for one in divergences])
                whole = policy.leave_one_out_advantages(rewards, settings.group_size)
                experience.advantages = [value.float().expand(n) for value, n in zip(whole, lengths, strict=True)]
            case "ppo":
                self._weigh_by_values(experience, rewards, divergences, kl)

    def _weigh_by_values(self, experience: _Experience, rewards: Tensor, divergences: list[Tensor], kl: float) -> None:
        settings = self.settings
        advantages, returns = [], []
        for number, values in enumerate(experience.values):
            each = torch.zeros(len(values))
            if divergences:
                each -= kl * divergences[number].cpu()
            if len(each):
                each[-1] += float(rewards[number])
            one, of_return = policy.generalised_advantages(
                each, values.cpu(), discount=settings.discount, decay=settings.decay
            )
            advantages.append(one)
            returns.append(of_return)
        lengths = [len(one) for one in advantages]
        experience.advantages = list(torch.split(policy.whitened(torch.cat(advantages)), lengths))
        experience.returns = returns

    def _batch_of(self, parts: Sequence[Sequence[int]]) -> _Batch:
        experience, device = self._experience, self.setting.device
        numbers = [number for part in parts for number in part]

        def joined(values: list[Tensor]) -> Tensor:
            return torch.cat([values[number] for number in numbers]).to(device) if values else torch.empty(0)

        return _Batch(
            self.laid_out([[experience.tokens[number] for number in part] for part in parts]),
            joined(experience.advantages),
            joined(experience.old),
            joined(experience.reference),
            joined(experience.values),
            joined(experience.returns),
        )

    # ------------------------------------------------------------ the loss

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The share of a micro-batch in the mean over the step."""
        assert isinstance(model, LanguageModel)
        assert isinstance(batch, _Batch)
        settings, sequences = self.settings, batch.sequences
        values = torch.empty(0)
        if self.method == "ppo":
            log_probs, values = self._logprobs_and_values(model, sequences)
        else:
            log_probs = token_logprobs(model, sequences, self.sampling)
        old = batch.old if len(batch.old) else log_probs.detach()
        log_ratio = log_probs - old
        self.note({"entropy": -log_probs})  # of tokens that were drawn: an estimate without bias
        if self.method == "rloo":
            return self._sequence_loss(log_ratio, batch)
        clip = {"clip_low": settings.clip_low, "clip_high": settings.clip_high}
        losses = policy.clipped_policy_loss(log_ratio, batch.advantages, **clip)
        self.note({"clipped": ((log_ratio.exp() - 1).abs() > settings.clip_low).float()})
        if len(batch.reference) and self.method == "grpo":
            losses = losses + float(self._kl) * policy.corrected_divergence(log_probs, batch.reference, log_ratio)
        total = self._mean(losses, sequences)
        if self.method == "ppo":
            of_values = policy.clipped_value_loss(values, batch.values, batch.returns, clip=settings.clip_low)
            self.note({"value_loss": of_values})
            total = total + settings.value_weight * self._mean(of_values, sequences)
        return total

    def _sequence_loss(self, log_ratio: Tensor, batch: _Batch) -> Tensor:
        """RLOO: whole answers become likelier or less likely."""
        sequences, settings = batch.sequences, self.settings
        lengths = sequences.lengths.clamp(min=1)
        advantages = by_sequence(batch.advantages, sequences) / lengths
        whole = by_sequence(log_ratio, sequences)
        clip = {"clip_low": settings.clip_low, "clip_high": settings.clip_high}
        return policy.clipped_policy_loss(whole, advantages, **clip).sum() / self._num_answers

    @property
    def _num_answers(self) -> float:
        """Of a step, by all processes."""
        return float(self.setting.batch_size * self.settings.group_size)

    def _mean(self, losses: Tensor, sequences: Sequences) -> Tensor:
        return policy.mean_over_tokens(
            losses,
            sequences.lengths,
            sequences.owners,
            kind=self.settings.mean,
            num_tokens=max(1.0, self._experience.num_learnt),
            num_answers=self._num_answers,
            longest=self.settings.max_tokens,
        )

    def _logprobs_and_values(self, model: LanguageModel, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Of each learnt token, and what the value head says where it is predicted."""
        seen: list[Tensor] = []
        log_probs = token_logprobs(model, sequences, self.sampling, on_hidden=seen.append)
        head = getattr(model, VALUE_HEAD)
        return log_probs, head(seen[0]).float()[:, 0]

    # ------------------------------------------------------------ evaluation

    def evaluate(self, model: LanguageModel) -> dict[str, float]:
        """Rewards of the likeliest answers to validation prompts."""
        scores = judged_answers(
            model,
            self.validation_prompts[: self.settings.eval_prompts],
            self.settings.max_tokens,
            rollout_fn=self._rollout_fn,
            reward_fn=self._reward_fn,
        )
        if len(self._recent) == _WINDOW:
            self.warnings += diagnosis(self._recent, self.settings.max_tokens)
        return scores

    # ------------------------------------------------------------ what a checkpoint keeps

    def _state(self) -> dict[str, Tensor]:
        state = {"kl": self._kl.clone()}
        experience = self._experience
        if self.settings.updates == 1 or not experience.tokens:
            return state
        lengths = [len(one.ids) for one in experience.tokens]
        state |= {
            "number": torch.tensor(self._rollout_number),
            "lengths": torch.tensor(lengths),
            "ids": torch.tensor([token for one in experience.tokens for token in one.ids]),
            "is_learnt": torch.tensor([learnt for one in experience.tokens for learnt in one.is_learnt]),
        }
        for name in ("advantages", "old", "reference", "values", "returns"):
            parts = getattr(experience, name)
            if parts:
                state[name] = torch.cat(parts).cpu()
        return state

    def _restore(self, state: dict[str, Tensor]) -> None:
        self._kl = state["kl"].clone()
        self._rollout_number = -1
        if "number" not in state:
            return
        lengths = state["lengths"].tolist()
        ids, learnt = torch.split(state["ids"], lengths), torch.split(state["is_learnt"], lengths)
        tokens = [Tokens(one.tolist(), flags.tolist()) for one, flags in zip(ids, learnt, strict=True)]
        counts = [one.num_learnt for one in tokens]
        parts = {
            name: list(torch.split(state[name].to(self.setting.device), counts))
            for name in ("advantages", "old", "reference", "values", "returns")
            if name in state
        }
        self._experience = _Experience(tokens, **parts, num_learnt=float(sum(counts)))
        self._rollout_number = int(state["number"])
