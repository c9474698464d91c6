"""Talking on the terminal: any model answers as it would be asked by itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.commands import chat
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import chat_ids

HOW = {"max_tokens": 9, "seed": 3, "ignore_eos": True}


@pytest.mark.parametrize(
    ("model_type", "more"), [("qwen3", {}), ("speedrun", {}), ("qwen3", {"kv_cache": "int8"})], ids=str
)
def test_an_answer_is_what_generate_writes(
    small_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model_type: str,
    more: dict[str, str],
) -> None:
    folder = random_checkpoint(tmp_path / "run", {"model_type": model_type, **SMALL_SHAPE}, small_tokenizer)
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n/reset\nthe mat\n/quit\n"))
    chat.run(chat.Settings(run=folder, **HOW, **more))
    printed = capsys.readouterr().out
    model, tokenizer = checkpoint.load_model(folder)
    for line in ("the cat", "the mat"):
        ids = chat_ids(tokenizer, [{"role": "user", "content": line}])
        params = SamplingParams(**HOW, **more, stop=[] if tokenizer.chat_template else ["\nUser:"])
        assert "".join(generate(model, tokenizer, ids, params)).lstrip() in printed
