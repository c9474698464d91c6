"""Scores against the closed formula, and against scoring each document alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inkling import models
from inkling.data.loader import sequential_windows, windows_of_ids
from inkling.data.shards import Dataset
from inkling.eval import perplexity
from inkling.eval.perplexity import bytes_per_token, evaluate
from inkling.tokenizer import Tokenizer


def model_for(vocab_size: int, context: int) -> models.LanguageModel:
    architecture = models.load("qwen3")
    config = architecture.Config.from_dict(
        {
            "model_type": "qwen3",
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": context,
        }
    )
    model = architecture.Model(config, dropout=0.5)
    model.init_weights(torch.Generator().manual_seed(1))
    for parameter in model.parameters():  # so that attention matters
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_a_model_that_knows_nothing_costs_the_logarithm_of_the_vocabulary(data_folder: Path) -> None:
    tokenizer, dataset = Tokenizer.load(data_folder), Dataset.open(data_folder)
    model = model_for(dataset.vocab_size, 64)
    torch.nn.init.zeros_(model.head_weight)
    lengths = bytes_per_token(tokenizer.token_bytes, dataset.vocab_size)
    score = evaluate(model, sequential_windows(dataset.validation, 64, 4, dataset.eot_id), bytes_of_token=lengths)
    assert score.loss == pytest.approx(math.log(dataset.vocab_size), rel=1e-6)
    assert score.perplexity == pytest.approx(dataset.vocab_size, rel=1e-5)
    assert (score.num_tokens, score.num_bytes) == (dataset.validation.num_tokens, dataset.validation.num_bytes)
    expected = score.num_tokens * math.log2(dataset.vocab_size) / dataset.validation.num_bytes
    assert score.bits_per_byte == pytest.approx(expected, rel=1e-6)


def test_packed_documents_score_as_each_alone(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "MAX_LOGITS", 2000)  # several portions of logits
    dataset = Dataset.open(data_folder)
    model = model_for(dataset.vocab_size, 4096).eval()
    split = dataset.validation
    assert split.num_tokens < 9000
    total, start = 0.0, 0
    with torch.no_grad():
        for end in split.document_ends.tolist():
            ids = torch.from_numpy(np.concatenate([[dataset.eot_id], split.tokens(start, end)]).astype(np.int64))
            total += F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum").item()
            start = end
    lengths = np.ones(dataset.vocab_size, dtype=np.int64)
    score = evaluate(model, sequential_windows(split, 9000, 1, dataset.eot_id), bytes_of_token=lengths)
    assert score.loss == pytest.approx(total / split.num_tokens, rel=1e-5)


def test_evaluation_leaves_the_model_as_it_was() -> None:
    model = model_for(50, 32).train()
    ids = np.arange(40)
    first = evaluate(model, windows_of_ids(ids, 8, 2, 0), bytes_of_token=np.ones(50, np.int64))
    assert model.training
    assert first == evaluate(model, windows_of_ids(ids, 8, 2, 0), bytes_of_token=np.ones(50, np.int64))
    assert first.num_tokens == 39
