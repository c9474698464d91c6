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


@pytest.mark.parametrize(("values", "form"), CASES, ids=str)
def test_logits_are_those_of_torch(
    values: dict[str, Any], form: str, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = load(values, form, small_tokenizer, tmp_path / "run")
    memory = PagedMemory(model.config, 9, model.dtype, model.device)
    try:
        step = native.NativeStep(model, memory)
    except native.UnavailableError as reason:
        pytest.skip(str(reason))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, small_tokenizer.vocab_size, (5, 80), generator=generator)
    blocks = [[0, 5], [1, 6], [2, 7], [3, 8], [4, 4]]  # the last row stays in one block
    with torch.inference_mode():
        wanted = model(ids).float()
    found = torch.empty_like(wanted)
    for place in range(80):
        rows = [0, 1, 2, 3, 4] if place < 64 else [0, 1, 2, 3]
        found[rows, place] = step(ids[rows, place].tolist(), [place] * len(rows), [blocks[row] for row in rows])
    rough = form != "fp32"  # torch rounds each layer's inputs to bf16 there
    for row in range(5):
        seen = 64 if row == 4 else 80
        difference = (found[row, :seen].log_softmax(-1) - wanted[row, :seen].log_softmax(-1)).abs()
        assert difference.mean() < (0.05 if rough else 1e-5)
        assert difference.max() < (0.6 if rough else 1e-3)


def test_threads_and_company_change_no_bit(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = load({"model_type": "qwen3"}, "fp32", small_tokenizer, tmp_path / "run")
    memory = PagedMemory(model.config, 8, model.dtype, model.device)
    try:
        step = native.NativeStep(model, memory)
    except native.UnavailableError as reason:
        pytest.skip(str(reason))
    blocks = [[number] for number in range(7)]
    alone = torch.cat([step([number + 3], [0], [blocks[number]]) for number in range(7)])
    assert torch.equal(step(list(range(3, 10)), [0] * 7, blocks), alone)
    torch.set_num_threads(2)
    assert torch.equal(step(list(range(3, 10)), [0] * 7, blocks), alone)


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
