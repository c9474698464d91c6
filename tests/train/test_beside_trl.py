"""Losses of whole stages beside `trl`'s, on the same weights and tokens."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.train.preferences import FeedbackStage, PreferenceSettings, PreferenceStage
from inkling.train.reinforce import ReinforceStage
from inkling.train.reward_model import RewardModelStage, RewardSettings, read_at_the_end
from inkling.train.rollouts import Prompt, Rollout, RolloutSettings
from inkling.train.sequences import TokenBudget, Tokens
from inkling.train.sft import SupervisedStage
from inkling.train.stage import Setting

pytestmark = pytest.mark.filterwarnings("ignore")  # of trl, transformers, accelerate and datasets

CPU = torch.device("cpu")
PAIRS = [
    ("the cat", " sat on a mat", " fell"),
    ("rain", " fell and we read", " the 12 while"),
    ("a", " mat", " cat cat"),
]
SIDES = ("chosen", "rejected")


@pytest.fixture
def folder(small_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("trl")
    import datasets.fingerprint

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # datasets 5.2 cannot hash some of what pyarrow holds.
    monkeypatch.setattr(datasets.fingerprint.Hasher, "hash", classmethod(lambda cls, value: uuid.uuid4().hex[:16]))
    return random_checkpoint(tmp_path / "model", {"model_type": "llama", **SMALL_SHAPE}, small_tokenizer)


def setting(count: int) -> Setting:
    return Setting(count, TokenBudget(10_000, lambda left: None), 64, pack=False, seed=1, device=CPU)


def opened(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer, by transformers."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.pad_token = "<|endoftext|>"
    return AutoModelForCausalLM.from_pretrained(folder), tokenizer


def gradients_of(loss: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: Any, theirs: Any, model: LanguageModel, their_model: torch.nn.Module) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    mine, others = gradients_of(ours, model), gradients_of(theirs, their_model)
    assert len(mine) > 10
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "theirs", "options"),
    [
        ("sigmoid", ["sigmoid"], {}),
        ("hinge", ["hinge"], {}),
        ("robust", ["robust"], {"label_smoothing": 0.1}),
        ("ipo", ["ipo"], {"length_normalised": True}),
        ("sigmoid", ["sigmoid", "sft"], {"sft_weight": 1.0}),
    ],
    ids=lambda value: str(value),
)
def test_dpo(
    small_tokenizer: Tokenizer, folder: Path, tmp_path: Path, kind: Any, theirs: list[str], options: dict[str, Any]
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    their_model, tokenizer = opened(folder)
    rows = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    arguments = DPOConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, beta=0.3, loss_type=theirs,
        loss_weights=[1.0] * len(theirs), label_smoothing=options.get("label_smoothing", 0.0),
    )  # fmt: skip
    reference, _ = opened(folder)
    trainer = DPOTrainer(
        their_model, ref_model=reference, args=arguments, train_dataset=rows, processing_class=tokenizer
    )
    examples = [trainer.train_dataset[number] for number in range(len(PAIRS))]
    batch = trainer.data_collator(examples)
    with torch.no_grad():  # a policy that has moved away
        for parameter in their_model.parameters():
            parameter.mul_(1.02)
    their_loss = trainer._compute_loss(trainer.model, batch, False)

    items = []
    for one in examples:
        prompt = one["prompt_ids"]
        both = (one["chosen_ids"], one["rejected_ids"])
        items.append([Tokens([*prompt, *ids], [False] * len(prompt) + [True] * len(ids)) for ids in both])
    model = checkpoint.load_model(folder)[0]
    settings = PreferenceSettings(beta=0.3, loss=kind, **{"sft_weight": 0.0, **options})
    stage = PreferenceStage(items, items, setting(len(items)), settings, "dpo")
    stage.begin(model)
    model.load_state_dict(their_model.state_dict())
    (compared,) = stage.micro_batches(0)
    assert_same(stage.loss(model, compared) / stage.size(0), their_loss, model, their_model)


@pytest.mark.parametrize("method", ["orpo", "simpo"])
def test_without_a_reference(folder: Path, tmp_path: Path, method: Any) -> None:
    """Both with the supervised term; trl's ORPO imitates the prompt as well, so that its term is compared apart."""
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    their_model, tokenizer = opened(folder)
    common: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"), "report_to": [], "use_cpu": True, "bf16": False, "beta": 0.7,
        "max_length": 64, "remove_unused_columns": False,
    }  # fmt: skip
    if method == "orpo":
        arguments, trainer_class = ORPOConfig(**common), ORPOTrainer
    else:
        more = {"loss_type": "simpo", "simpo_gamma": 0.4, "cpo_alpha": 1.0}
        arguments, trainer_class = CPOConfig(**common, **more), CPOTrainer
    rows = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS])
    trainer = trainer_class(their_model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    examples = [trainer.train_dataset[number] for number in range(len(PAIRS))]
    batch = trainer.data_collator(examples)
    if method == "orpo":
        chosen, rejected = trainer.concatenated_forward(trainer.model, batch)[:2]
        theirs = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    else:
        theirs = trainer.get_batch_loss_metrics(trainer.model, batch)[0]

    items = [
        [Tokens(one[f"{side}_input_ids"], [label != -100 for label in one[f"{side}_labels"]]) for side in SIDES]
        for one in examples
    ]
    model = checkpoint.load_model(folder)[0]
    settings = PreferenceSettings(beta=0.7, margin=0.4, sft_weight=0.0 if method == "orpo" else 1.0)
    stage = PreferenceStage(items, items, setting(len(items)), settings, method)
    stage.begin(model)
    (compared,) = stage.micro_batches(0)
    assert_same(stage.loss(model, compared) / stage.size(0), theirs, model, their_model)


def test_packed_sft_is_theirs_padded(folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    their_model, tokenizer = opened(folder)
    rows = [{"prompt": p, "completion": c} for p, *answers in PAIRS for c in answers]
    arguments = SFTConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, max_length=64, loss_type="nll"
    )
    trainer = SFTTrainer(their_model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    examples = [trainer.train_dataset[number] for number in range(len(rows))]
    batch = trainer.data_collator(examples)
    assert batch["input_ids"].shape[0] == len(rows)
    theirs = trainer.compute_loss(trainer.model, batch)

    texts = []
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        texts.append(Tokens(ids[:length].tolist(), (labels[:length] != -100).tolist()))
    model = checkpoint.load_model(folder)[0]
    stage = SupervisedStage(texts, texts, replace(setting(len(texts)), pack=True), [1] * 500)
    (packed,) = stage.micro_batches(0)
    assert len(packed.input_ids) == 1
    assert_same(stage.loss(model, packed) / stage.size(0), theirs, model, their_model)


@pytest.mark.parametrize(
    ("loss_type", "mean"), [("dapo", "tokens"), ("grpo", "answers"), ("dr_grpo", "constant")], ids=str
)
@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_grpo(small_tokenizer: Tokenizer, folder: Path, tmp_path: Path, loss_type: str, mean: Any, kl: float) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    their_model, tokenizer = opened(folder)
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, beta=0.0, num_generations=4,
        epsilon=0.2, epsilon_high=0.28, per_device_train_batch_size=4, max_completion_length=12, loss_type=loss_type,
    )  # fmt: skip
    trainer = GRPOTrainer(
        their_model,
        reward_funcs=lambda completions, **more: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 4),
        processing_class=tokenizer,
    )
    trainer.beta = kl
    trainer.current_gradient_accumulation_steps = 1

    model = checkpoint.load_model(folder)[0]
    prompts = [Prompt([0, *small_tokenizer.encode(text)], text, {}) for text in ("the cat", "rain")]
    answers = [
        [5, 9, 3, 0],
        [7, 8, 9, 10, 11, 12],
        [20, 0],
        [30, 31, 32, 33, 0],
        [4, 4, 0],
        [9, 0],
        [50, 51, 0],
        [60, 0],
    ]
    rewards = [1.0, 0, 0, 0.5, 0, 1, 1, 0]
    settings = RolloutSettings(rewards=["x"], group_size=4, max_tokens=12, updates=2, mean=mean, kl=kl)
    stage = ReinforceStage(
        prompts,
        prompts,
        setting(2),
        settings,
        "grpo",
        rollout_fn=lambda *given: [Rollout(ids, "", is_finished=True) for ids in answers],
        reward_fn=lambda some, texts: {"x": rewards},
    )
    with torch.no_grad():
        moved = [parameter.mul(1.01) for parameter in model.parameters()]
    stage.begin(model)
    (first,) = stage.micro_batches(0)
    with torch.no_grad():  # the second step on the same answers
        for parameter, values in zip(model.parameters(), moved, strict=True):
            parameter.copy_(values)
    (batch,) = stage.micro_batches(1)
    assert torch.equal(batch.old, first.old)
    ours = stage.loss(model, batch) / stage.size(1)

    their_model.load_state_dict(model.state_dict())
    order = [number for number in stage.order.items(0) for _ in range(4)]

    prompt_rows = [prompts[number].ids for number in order]
    lengths = [len(ids) for ids in answers]
    advantages = torch.stack([one[0] for one in stage._experience.advantages])
    inputs = {
        "prompt_ids": padded(prompt_rows, left=True),
        "prompt_mask": padded([[1] * len(ids) for ids in prompt_rows], left=True),
        "completion_ids": padded(answers, left=False),
        "completion_mask": padded([[1] * length for length in lengths], left=False),
        "advantages": advantages,
        "old_per_token_logps": padded([one.tolist() for one in stage._experience.old], left=False),
        "num_items_in_batch": torch.tensor(sum(lengths)),
    }
    if kl:
        inputs["ref_per_token_logps"] = padded([one.tolist() for one in stage._experience.reference], left=False)
    theirs = trainer._compute_loss(trainer.model, inputs)
    assert_same(ours, theirs, model, their_model)


def padded(rows: list[list[Any]], *, left: bool = False, value: float = 0) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[value] * (width - len(r)) + r if left else r + [value] * (width - len(r)) for r in rows])


def test_kto(small_tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    their_model, tokenizer = opened(folder)
    flags = [True, False, True, False]
    texts = [("the cat", " sat on a mat"), ("rain", " fell"), ("a", " mat the 12"), ("we", " read and read")]
    rows = [{"prompt": p, "completion": c, "label": flag} for (p, c), flag in zip(texts, flags, strict=True)]
    arguments = KTOConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, beta=0.3, desirable_weight=1.0,
        undesirable_weight=1.5, per_device_train_batch_size=4,
    )  # fmt: skip
    trainer = KTOTrainer(
        their_model,
        ref_model=opened(folder)[0],
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    prompts = [[0, *small_tokenizer.encode(prompt)] for prompt, _ in texts]
    answers = [[*small_tokenizer.encode(answer), 0] for _, answer in texts]
    others = [answers[(number + 2) % 4] for number in range(4)]

    def tokens(prompt: list[int], answer: list[int]) -> Tokens:
        return Tokens([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))

    items = [[tokens(p, a), tokens(p, o)] for p, a, o in zip(prompts, answers, others, strict=True)]
    model = checkpoint.load_model(folder)[0]
    stage = FeedbackStage(items, items, setting(4), PreferenceSettings(beta=0.3, bad_weight=1.5), (flags, flags))
    stage.begin(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.97)
    their_model.load_state_dict(model.state_dict())
    batch: dict[str, torch.Tensor] = {"label": torch.tensor(flags)}
    for prefix, number in (("", 0), ("KL_", 1)):
        some = [item[number] for item in items]
        batch[f"{prefix}input_ids"] = padded([list(one.ids) for one in some])
        batch[f"{prefix}attention_mask"] = padded([[1] * len(one.ids) for one in some])
        batch[f"{prefix}completion_mask"] = padded([[int(flag) for flag in one.is_learnt] for one in some])
    theirs = trainer._compute_loss(trainer.model, batch, False)
    (compared,) = stage.micro_batches(0)
    assert compared.divergence is not None
    assert compared.divergence > 0
    assert_same(stage.loss(model, compared) / stage.size(0), theirs, model, their_model)


def test_rloo(small_tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    their_model, tokenizer = opened(folder)
    arguments = RLOOConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, beta=0.0, num_generations=4,
        epsilon=0.2, epsilon_high=0.28, per_device_train_batch_size=4, max_completion_length=12,
    )  # fmt: skip
    trainer = RLOOTrainer(
        their_model,
        reward_funcs=lambda completions, **more: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 4),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    model = checkpoint.load_model(folder)[0]
    prompt = Prompt([0, *small_tokenizer.encode("the cat")], "the cat", {})
    answers = [[5, 9, 3, 0], [7, 8, 9, 10, 11, 12], [20, 0], [30, 31, 32, 33, 0]]
    stage = ReinforceStage(
        [prompt],
        [prompt],
        setting(1),
        RolloutSettings(rewards=["x"], group_size=4, max_tokens=12, updates=2),
        "rloo",
        rollout_fn=lambda *given: [Rollout(ids, "", is_finished=True) for ids in answers],
        reward_fn=lambda some, texts: {"x": [1.0, 0.2, 0.0, 0.5]},
    )
    stage.begin(model)
    list(stage.micro_batches(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.003)
    (batch,) = stage.micro_batches(1)
    their_model.load_state_dict(model.state_dict())
    theirs = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": torch.tensor([prompt.ids] * 4),
            "prompt_mask": torch.ones(4, len(prompt.ids), dtype=torch.int64),
            "completion_ids": padded(answers),
            "completion_mask": padded([[1] * len(ids) for ids in answers]),
            "advantages": torch.tensor([one[0].item() for one in stage._experience.advantages]),
            "old_logps": torch.stack([one.sum() for one in stage._experience.old]),
        },
    )
    assert_same(stage.loss(model, batch) / stage.size(1), theirs, model, their_model)


def test_reward_model(small_tokenizer: Tokenizer, folder: Path) -> None:
    from transformers import AutoModel
    from trl import RewardTrainer

    ids = [[0, 5, 9, 3, 0], [0, 5, 7, 0], [0, 11, 12, 13, 14, 0], [0, 11, 40, 0]]
    answers = [Tokens(one, [False, False, *[True] * (len(one) - 2)]) for one in ids]
    pairs = [[read_at_the_end(one, 0) for one in answers[at : at + 2]] for at in (0, 2)]
    model = checkpoint.load_model(folder)[0]
    stage = RewardModelStage(pairs, pairs, setting(2), RewardSettings(centering=0.1))
    stage.begin(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.value_head.weight.normal_(generator=generator)  # type: ignore[union-attr,operator]
    their_model = AutoModel.from_pretrained(folder)

    def score(input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        hidden = their_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache).last_hidden_state
        last = hidden[torch.arange(len(hidden)), attention_mask.sum(1) - 1]
        return SimpleNamespace(logits=last @ model.value_head.weight.T)  # type: ignore[union-attr,operator]

    order = [0, 2, 1, 3]  # theirs has the chosen ones first
    inputs = {
        "input_ids": padded([ids[number] for number in order]),
        "attention_mask": padded([[1] * len(ids[number]) for number in order]),
    }
    gathering = SimpleNamespace(gather=lambda value: value, gather_for_metrics=lambda value: value)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), args=SimpleNamespace(center_rewards_coefficient=0.1),
        accelerator=gathering, _total_train_tokens=0, _tp_size=1, _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    theirs = RewardTrainer.compute_loss(trainer, score, inputs)
    batch = next(iter(stage.batches_of([0, 1], pairs)))
    ours = stage.loss(model, batch) / 2
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    mine, others = gradients_of(ours, model), gradients_of(theirs, their_model)
    for name, gradient in others.items():
        torch.testing.assert_close(mine[f"model.{name}"], gradient, rtol=1e-4, atol=1e-5)
