"""Talking on the terminal: any model answers as it would be asked by itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, cli
from inkling.commands import chat
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.models import SeeingModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import CHATML, PICTURE, chat_ids

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


def test_pictures_are_shown_with_what_is_said_next(
    small_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_tokenizer.save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    tokenizer.chat_template = CHATML
    random_checkpoint(tmp_path / "text", {"model_type": "qwen3", **SMALL_SHAPE}, tokenizer)
    folder = tmp_path / "run"
    assert cli.main(["grow", str(tmp_path / "text"), "--pictures", "32", "-o", str(folder)]) == 0
    noise = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    for number, one in enumerate(noise):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    (tmp_path / "text.png").write_text("no picture")
    lines = ["/picture text.png", "/picture 0.png", "the cat", "/reset", "/picture 1.png", "the cat", "/quit"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    chat.run(chat.Settings(run=folder, **HOW))
    printed = capsys.readouterr()
    assert "text.png is no picture that can be read" in printed.err
    model, tokenizer = checkpoint.load_model(folder)
    assert isinstance(model, SeeingModel)
    answers = []
    for one in noise:
        engine = Engine(model, tokenizer)
        shown = [model.image_token] * model.tokens_of_a_picture
        ids = chat_ids(tokenizer, [{"role": "user", "content": f"{PICTURE}\nthe cat"}], picture_ids=shown)
        answer = Completing(model, tokenizer, [tokenizer.eot_id, *ids], SamplingParams(**HOW), pictures=[one])
        engine.add(answer)
        while not engine.is_idle:
            engine.step()
        answers.append(answer.text)
        assert answer.text.lstrip() in printed.out
    assert answers[0] != answers[1]


def test_who_sees_nothing_says_so(
    small_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = random_checkpoint(tmp_path / "run", {"model_type": "qwen3", **SMALL_SHAPE}, small_tokenizer)
    monkeypatch.setattr("sys.stdin", io.StringIO("/picture a.png\n/quit\n"))
    chat.run(chat.Settings(run=folder, **HOW))
    assert "this model sees no pictures" in capsys.readouterr().err
