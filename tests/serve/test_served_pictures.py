"""Pictures in conversations, by the official client."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from browser import PROGRAM, Browser
from PIL import Image
from serving import CHATML, Running

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, cli
from inkling.commands import serve
from inkling.data.pictures import to_pixels
from inkling.models import SeeingModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.chat import PICTURE, chat_ids


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def message(*urls: str, text: str = "What is it?") -> Any:
    parts = [{"type": "image_url", "image_url": {"url": one}} for one in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def folder(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing")
    small_tokenizer.save(folder / "tokenizer")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    tokenizer.chat_template = CHATML
    random_checkpoint(folder / "text", {"model_type": "qwen3", **SMALL_SHAPE}, tokenizer)
    command = ["grow", str(folder / "text"), "-o", str(folder / "eyes"), "--pictures", "16", "--patch", "8"]
    assert cli.main(command) == 0
    model, tokenizer = checkpoint.load_model(folder / "eyes")
    with torch.no_grad():  # eyes that are loud, so that what they see changes what is said
        for name, parameter in model.named_parameters():
            if name.startswith(("vision_tower.", "multi_modal")):
                parameter.normal_(0, 0.4, generator=torch.Generator().manual_seed(len(name)))
    checkpoint.save_weights(folder / "eyes", model.state_dict())
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    found = Running(serve.Settings(runs=[folder / "eyes", folder / "text"], port=0, precision="fp32"))
    yield found
    found.stop()


def ask(running: Running, messages: Any, model: str = "eyes") -> str:
    done = running.client().chat.completions.create(model=model, messages=messages, max_tokens=10, temperature=0)
    return done.choices[0].message.content or ""


@torch.no_grad()
def expected(folder: Path, pictures: list[np.ndarray], text: str = "What is it?") -> str:
    """Greedy, without cache or engine."""
    model, tokenizer = checkpoint.load_model(folder / "eyes")
    assert isinstance(model, SeeingModel)
    said = [{"role": "user", "content": PICTURE * len(pictures) + text}]
    image = [model.image_token] * model.tokens_of_a_picture
    ids = [tokenizer.eot_id, *chat_ids(tokenizer, said, picture_ids=image)]
    seen, found = model.see(to_pixels(pictures)), []
    while len(found) < 10:
        logits = model.logits(model.hidden(torch.tensor([ids + found]), seen=seen)[0, -1])[: tokenizer.vocab_size]
        logits[model.image_token] = -torch.inf
        token = int(logits.argmax())
        if token in tokenizer.end_ids:
            break
        found.append(token)
    return tokenizer.decode(found)


def test_what_is_said_is_what_the_model_says_of_the_pictures(running: Running, folder: Path) -> None:
    one, other = picture(1), picture(2)
    answers = {
        "one": ask(running, message(url(one))),
        "other": ask(running, message(url(other))),
        "both": ask(running, message(url(one), url(other))),
    }
    assert answers == {
        "one": expected(folder, [one]),
        "other": expected(folder, [other]),
        "both": expected(folder, [one, other]),
    }
    assert len(set(answers.values())) == 3
    assert ask(running, message(url(one))) == answers["one"]  # its beginning is held, and is that of this picture


def test_who_sees_is_told(running: Running) -> None:
    models = {one.id: one.model_dump() for one in running.client().models.list()}
    assert {name: one["sees_pictures"] for name, one in models.items()} == {"eyes": True, "text": False}


@pytest.mark.parametrize(
    ("messages", "model", "reason"),
    [
        (message(url(picture(1))), "text", "the model text sees no pictures"),
        (message("https://example.org/a.png"), "eyes", "not fetched"),
        (message("file:///etc/passwd"), "eyes", "not fetched"),
        (message("/etc/passwd"), "eyes", "not fetched"),
        (message("data:image/png;base64,AAAA"), "eyes", "no picture that can be read"),
        (message(*[url(picture(1))] * 17), "eyes", "16 is the most"),
        (message(*[url(picture(1))] * 16, text="x " * 200), "eyes", "context"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "eyes", "object with a url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "eyes", "text and image_url"),
    ],
    ids=["blind", "https", "file", "path", "damaged", "many", "long", "no url", "audio"],
)
def test_bad_pictures_are_refused_by_name(running: Running, messages: Any, model: str, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason):
        ask(running, messages, model)


DROP = """
(() => {
  const canvas = document.createElement("canvas"); canvas.width = 800; canvas.height = 400;
  const pen = canvas.getContext("2d"); pen.fillStyle = "red"; pen.fillRect(0, 0, 800, 400);
  canvas.toBlob((blob) => take([new File([blob], "a.png", { type: "image/png" })]));
})(); 0
"""


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_a_picture_dropped_on_the_page(running: Running, tmp_path: Path) -> None:
    page = Browser(tmp_path / "profile")
    try:
        page.open(running.url)
        page.wait_for("document.getElementById('model')?.options.length === 2")
        page.run("document.getElementById('model').value = 'eyes'; document.getElementById('model').onchange(); 0")
        page.run("document.getElementById('max_tokens').value = 6; document.getElementById('seed').value = 1")
        assert page.run("document.getElementById('picture').hidden") is False
        page.run(DROP)
        page.wait_for("pending.length === 1 && document.querySelectorAll('#pending img').length === 1")
        page.run("document.getElementById('text').value = 'What is it?'")
        page.run("document.getElementById('form').requestSubmit()")
        page.wait_for("running === null && turns.length === 2")
        assert page.run("Boolean(turns[1].error)") is False
        assert page.run("turns[1].tokens.length") == 6
        assert page.run("document.querySelectorAll('.turn img').length") == 1
        page.run("window.probe = new Image(); probe.src = turns[0].pictures[0]; 0")
        page.wait_for("probe.width === 512 && probe.height === 256")  # made smaller before it was sent
        if folder_of_pictures := os.environ.get("INKLING_TEST_PICTURES"):
            page.picture(Path(folder_of_pictures) / "picture-dropped.png")
        page.run("document.getElementById('model').value = 'text'; document.getElementById('model').onchange(); 0")
        assert page.run("document.getElementById('picture').hidden") is True
        page.run(DROP)
        page.wait_for("turns.length === 3")
        assert "sees no pictures" in str(page.run("turns[2].error"))
    finally:
        page.close()
