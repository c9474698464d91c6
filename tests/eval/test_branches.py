"""Endings that share their beginning score as they do by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint, words
from inkling import checkpoint
from inkling.eval.branches import Group, score_groups
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer

NAMES = ["llama", "qwen3", "qwen2", "gpt2"]


def model_of(name: str, tokenizer: Tokenizer, folder: Path) -> LanguageModel:
    return checkpoint.load_model(random_checkpoint(folder / name, {"model_type": name, **SMALL_SHAPE}, tokenizer))[0]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_each_text_alone(name: str, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of(name, small_tokenizer, tmp_path)
    ids = small_tokenizer.encode(words(3, 400))
    groups = [
        Group(ids[:20], [ids[20:25], ids[40:41], ids[50:58]]),
        Group(ids[5:6], [ids[60:70]]),
        Group(ids[:50], [ids[80:90], ids[20:25]]),
        *(
            Group([*ids[:30], *ids[40 + n : 45 + 2 * n]], [ids[60:64], ids[n : n + 1]]) for n in range(4)
        ),  # the same examples
    ]
    alike = score_groups(model, groups[3:])
    for most in (2048, 110, 60):
        found = score_groups(model, groups, max_row_tokens=most)
        if most == 2048:
            assert [[one.is_greedy for one in group] for group in alike] == [
                [one.is_greedy for one in group] for group in found[3:]
            ]
        for group, scores in zip(groups, found, strict=True):
            for ending, score in zip(group.endings, scores, strict=True):
                whole = torch.tensor([[*group.beginning, *ending]])
                with torch.inference_mode():
                    logits = model(whole)[0, len(group.beginning) - 1 : -1].double()
                table = logits.log_softmax(-1)
                wanted = table.gather(1, torch.tensor(ending)[:, None]).sum().item()
                assert score.nats == pytest.approx(wanted, abs=1e-4)
                assert score.is_greedy == bool((logits.argmax(-1) == torch.tensor(ending)).all())


def test_the_likeliest_ending_is_greedy(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of("llama", small_tokenizer, tmp_path)
    beginning = small_tokenizer.encode("the cat")
    ending: list[int] = []
    with torch.inference_mode():
        for _ in range(5):
            ending.append(int(model(torch.tensor([[*beginning, *ending]]))[0, -1].argmax()))
    ((greedy, other),) = score_groups(model, [Group(beginning, [ending, [*ending[:-1], (ending[-1] + 1) % 50]])])
    assert greedy.is_greedy
    assert not other.is_greedy


def test_what_neighbours_share_is_computed_once(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of("qwen3", small_tokenizer, tmp_path)
    ids = small_tokenizer.encode(words(3, 400))
    groups = [Group([*ids[:40], *ids[50 + n : 55 + n]], [ids[60:64], ids[n : n + 3]]) for n in range(6)]
    rows: list[int] = []
    embedding = dict(model.named_modules())["model.embed_tokens"]
    handle = embedding.register_forward_hook(lambda module, given, output: rows.append(output.shape[1]))
    shared = score_groups(model, groups)
    apart = [score_groups(model, [group])[0] for group in groups]
    handle.remove()
    assert rows[0] == 40 + 6 * (5 + 3 + 2)
    for one, other in zip(shared, apart, strict=True):
        assert [score.nats for score in one] == pytest.approx([score.nats for score in other], abs=1e-4)
