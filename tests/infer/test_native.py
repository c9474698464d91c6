"""The compiled step computes what torch computes, and is never required."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.infer import native
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.paged import PagedMemory
from inkling.infer.sampling import Draw, SamplingParams, next_tokens
from inkling.models import LanguageModel
from inkling.quantize import Quantization, default_formats, quantize_model
from inkling.tokenizer import Tokenizer

CASES: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "llama", "num_key_value_heads": 2}, "fp32"),
    ({"model_type": "llama", "attention_bias": True, "tie_word_embeddings": True}, "bf16"),
    ({"model_type": "qwen2"}, "fp32"),
    ({"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}, "fp32"),
    ({"model_type": "qwen3", "hidden_size": 128}, "int8"),
    ({"model_type": "llama", "hidden_size": 128}, "int4"),
    ({"model_type": "llama", "hidden_size": 256, "intermediate_size": 384}, "int4 in groups of 128"),
]


def load(values: dict[str, Any], form: str, tokenizer: Tokenizer, folder: Path) -> LanguageModel:
    random_checkpoint(folder, {**SMALL_SHAPE, **values}, tokenizer)
    model, _ = checkpoint.load_model(folder, dtype=torch.bfloat16 if form == "bf16" else None)
    if form.startswith("int"):
        group = 128 if form.endswith("128") else 32
        quantize_model(model, Quantization(default_formats(model, form[:4], group), group))
    return model


def native_step(model: LanguageModel, tokenizer: Tokenizer, num_blocks: int) -> native.NativeStep:
    memory = PagedMemory(model.config, num_blocks, model.dtype, model.device)
    try:
        return native.NativeStep(model, memory, tokenizer.vocab_size)
    except native.UnavailableError as reason:
        pytest.skip(str(reason))


BLOCKS = [[0, 5], [1, 6], [2, 7], [3, 8], [4, 4]]  # the last row stays in one block


def random_ids(tokenizer: Tokenizer) -> torch.Tensor:
    return torch.randint(0, tokenizer.vocab_size, (5, 80), generator=torch.Generator().manual_seed(0))


def one_by_one(step: native.NativeStep, ids: torch.Tensor) -> torch.Tensor:
    """Logits after each token, (5, 80, V); of the last row up to 64."""
    found = []
    for place in range(80):
        rows = range(5 if place < 64 else 4)
        spans = [native.Span(ids[row, place : place + 1].tolist(), place, BLOCKS[row]) for row in rows]
        logits = step(spans, range(len(spans)))
        found.append(torch.cat((logits, logits[:1])) if len(rows) == 4 else logits)
    return torch.stack(found, dim=1)


@pytest.mark.parametrize(("values", "form"), CASES, ids=str)
def test_logits_are_those_of_torch(
    values: dict[str, Any], form: str, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = load(values, form, small_tokenizer, tmp_path / "run")
    ids = random_ids(small_tokenizer)
    found = one_by_one(native_step(model, small_tokenizer, 9), ids)
    with torch.inference_mode():
        wanted = model(ids).float()
    rough = form != "fp32"  # torch rounds each layer's inputs to bf16 there
    for row in range(5):
        seen = 64 if row == 4 else 80
        difference = (found[row, :seen].log_softmax(-1) - wanted[row, :seen].log_softmax(-1)).abs()
        assert difference.mean() < (0.05 if rough else 1e-5)
        assert difference.max() < (0.6 if rough else 1e-3)


@pytest.mark.parametrize(("values", "form"), CASES, ids=str)
def test_company_pieces_and_threads_change_no_bit(
    values: dict[str, Any], form: str, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = load(values, form, small_tokenizer, tmp_path / "run")
    ids = random_ids(small_tokenizer)
    wanted = one_by_one(native_step(model, small_tokenizer, 9), ids)
    for threads, cut in ((1, 64), (2, 80), (2, 33)):
        torch.set_num_threads(threads)
        step = native_step(model, small_tokenizer, 9)
        found = []
        for start, end in ((0, cut), (cut, 80)):
            spans = [native.Span(ids[row, start:end].tolist(), start, BLOCKS[row]) for row in range(4) if start < end]
            if spans:
                found.append(step(spans, range(4 * (end - start))).view(4, end - start, -1))
        assert torch.equal(torch.cat(found, dim=1), wanted[:4])


def test_draws_are_those_of_torch(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    step = native_step(load({"model_type": "llama"}, "fp32", small_tokenizer, tmp_path / "run"), small_tokenizer, 1)
    logits = 4 * torch.randn(600, small_tokenizer.vocab_size, generator=torch.Generator().manual_seed(1))
    temperatures = [(0.0, 0.3, 1.0, 7.0)[row % 4] for row in range(600)]
    logits[4, 3], logits[5, 3], logits[6] = torch.nan, torch.inf, -torch.inf
    plain = [native.PlainDraw((row - 300) * 2**56, row % 50, value) for row, value in enumerate(temperatures)]
    wanted = next_tokens(
        logits,
        [
            Draw(SamplingParams(temperature=one.temperature), (), range(one.place), one.seed)  # as many tokens before
            for one in plain
        ],
    )
    assert step.draw(logits, plain) == [-1 if token_id is None else token_id for token_id in wanted]


def test_many_tokens_in_one_go_are_those_of_many_steps(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = load({"model_type": "qwen3"}, "bf16", small_tokenizer, tmp_path / "run")
    starts, limits = [5, 6, 7], [30, 12, 30]

    def draws(place: int, limits: list[int]) -> list[native.PlainDraw]:
        return [native.PlainDraw(row, place, 0.9, limit, [9 + row]) for row, limit in enumerate(limits)]

    together = native_step(model, small_tokenizer, 9)
    found = together.write([native.Span([starts[row]], 0, BLOCKS[row]) for row in range(3)], draws(0, limits))
    alone = native_step(model, small_tokenizer, 9)
    for row, token_ids in enumerate(found):
        assert len(token_ids) == limits[row] or token_ids[-1] == 9 + row
        before = [starts[row], *token_ids[:-1]]
        for place, (token_id, following) in enumerate(zip(before, token_ids, strict=True)):
            logits = alone([native.Span([token_id], place, BLOCKS[row])], [0])
            assert alone.draw(logits, [draws(place, limits)[row]]) == [following]
    assert [len(token_ids) for token_ids in found][1] == 12


def test_without_a_compiler_torch_does_it(
    small_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load({"model_type": "llama"}, "fp32", small_tokenizer, tmp_path / "run")
    monkeypatch.setenv("PATH", str(tmp_path))
    native._library.cache_clear()
    engine = Engine(model, small_tokenizer, EngineLimits(num_blocks=2))
    assert engine.native is None
    assert engine.why_not_native == "there is no C++ compiler"
    native._library.cache_clear()
    gpt2 = load({"model_type": "gpt2"}, "fp32", small_tokenizer, tmp_path / "gpt2")
    assert "gpt2" in Engine(gpt2, small_tokenizer, EngineLimits(num_blocks=2)).why_not_native
