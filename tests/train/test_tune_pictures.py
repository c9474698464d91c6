"""Models that see, taught: what learns, what is refused, and that answers depend on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import random_checkpoint
from inkling import checkpoint, cli
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import CHATML
from inkling.tokenizer.train import train_char
from inkling.train.sequences import Tokens, lay_out

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with eyes, and pictures that are red or blue."""
    folder = tmp_path_factory.mktemp("pictures")
    tokenizer = train_char(["What colour is it? red blue Describe the picture."])
    random_checkpoint(folder / "text", {"model_type": "llama", "hidden_size": 64}, tokenizer, spread=0.02)
    assert cli.main(["grow", str(folder / "text"), "-o", str(folder / "eyes"), "--pictures", "16", "--patch", "8"]) == 0
    draw = np.random.default_rng(0)
    rows = []
    for number in range(64):
        name, colour = list(COLOURS.items())[number % 2]
        noisy = np.clip(np.array(colour) + draw.integers(-60, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "What colour is it?", "answer": name})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:48]))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[48:]))
    return folder


def tune(folder: Path, run: str, *more: str) -> int:
    options = ["--steps", "60", "--batch-size", "16", "--lr", "3e-3", "--no-log.samples", "--machine.compile", "no"]
    rows = str(folder / "train.jsonl")
    given = ["--machine.precision", "fp32", "--machine.threads", "1", "--machine.attention", "sdpa", *options, *more]
    return cli.main(["tune", str(folder / "eyes"), rows, "-o", str(folder / run), *given])


def score(folder: Path, run: str, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    asked = ["sample", str(folder / run), str(folder / "test.jsonl"), "--rewards", "exact_answer", "--temperature", "0"]
    assert cli.main([*asked, "-n", "8", "--json"]) == 0
    return float(json.loads(capsys.readouterr().out)["reward"])


def test_answers_depend_on_what_is_seen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(folder, "tuned") == 0
    assert score(folder, "tuned", capsys) == 1.0


@pytest.mark.parametrize("learn", ["projector", "eyes"])
def test_what_is_held_still_stays_still(folder: Path, learn: str) -> None:
    assert tune(folder, f"learnt-{learn}", "--learn", learn, "--steps", "3") == 0
    before = checkpoint.load_model(folder / "eyes")[0].state_dict()
    newest = max((folder / f"learnt-{learn}" / "checkpoints").iterdir()) / "model.safetensors"
    after = load_file(newest)  # the weights after the last step, which need not be the best
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"projector": {"multi_modal_projector"}, "eyes": {"multi_modal_projector", "vision_tower"}}[learn]


def test_bad_requests_about_pictures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "alone.jsonl"
    alone.write_text('{"image": "0.png"}\n' * 8)
    for options, reason in [
        (["tune", str(folder / "text"), str(folder / "train.jsonl")], "the model sees none"),
        (["tune", str(folder / "text"), str(folder / "train.jsonl"), "--learn", "eyes"], "sees none"),
        (["tune", str(folder / "eyes"), str(folder / "train.jsonl"), "--context", "16"], "16 tokens"),
        (["tune", str(folder / "eyes"), str(alone)], "alone.jsonl:1: a picture without a caption or a question"),
        (["grow", str(folder / "eyes"), "--pictures", "16"], "has eyes already"),
        (["grow", str(folder / "text"), "--pictures", "128"], "a picture takes 256 tokens"),
        (["grow", str(folder / "text"), "--pictures", "16", "--patch", "5"], "multiple of patch_size"),
    ]:
        assert cli.main([*options, "-o", str(tmp_path / "out")]) in (1, 2)
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    asked = ["generate", str(folder / "eyes"), "--prompt", "what?", "--image", "https://example.com/cat.png"]
    assert cli.main(asked) == 1
    assert "pictures are not fetched: 'https://example.com/cat.png'" in capsys.readouterr().err


def test_pixels_follow_the_order_of_their_tokens() -> None:
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    texts: list[Any] = [
        Tokens([1, 9, 5, 6], [False, False, True, True], [lambda: pictures[0]]),
        Tokens(
            [1, 9, 9, 5, 6, 7, 7],
            [False, False, False, True, True, True, True],
            [lambda: pictures[1], lambda: pictures[2]],
        ),
    ]
    for pack in (False, True):
        batch = lay_out(texts, context=16, pack=pack, device=torch.device("cpu"))
        assert batch.pixels is not None
        order = [round((float(one[0, 0, 0]) + 1) * 127.5) for one in batch.pixels]
        rows = [20, 30, 10] if pack else [10, 20, 30]  # the longest text is packed first
        assert order == rows
        assert int((batch.input_ids == 9).sum()) == 3


def test_a_picture_takes_its_place_between_words(small_tokenizer: Tokenizer) -> None:
    from inkling.tokenizer.chat import PICTURE, chat_ids

    tokenizer = Tokenizer.from_json(small_tokenizer.to_json()) if hasattr(Tokenizer, "from_json") else small_tokenizer
    before, tokenizer.chat_template = tokenizer.chat_template, CHATML
    try:
        ids = chat_ids(tokenizer, [{"role": "user", "content": f"a{PICTURE}b"}], picture_ids=[-7, -7])
        plain = chat_ids(tokenizer, [{"role": "user", "content": "ab"}])
        start = ids.index(-7)
        assert ids[start : start + 2] == [-7, -7]
        assert tokenizer.decode(ids[:start] + ids[start + 2 :]) == tokenizer.decode(plain)
        assert -7 not in chat_ids(tokenizer, [{"role": "user", "content": f"a{PICTURE}b"}])
    finally:
        tokenizer.chat_template = before
