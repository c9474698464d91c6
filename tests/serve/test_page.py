"""The page at /, in a headless Chromium; skipped where there is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAM, Browser
from serving import Running, runs

from inkling.commands import serve
from inkling.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")

SEND = "document.getElementById('form').requestSubmit()"
IDLE = "running === null && turns.length > 0"
PICTURES = os.environ.get("INKLING_TEST_PICTURES")


@pytest.fixture(scope="module")
def page(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    given = serve.Settings(runs=runs(folder, small_tokenizer), port=0, keys=folder / "keys", precision="fp32")
    service, browser = Running(given), Browser(folder / "profile")
    browser.open(service.url)
    browser.wait_for("document.getElementById('model')?.options.length === 2")
    yield browser
    browser.close()
    service.stop()


def keep(page: Browser, name: str) -> None:
    """A picture to look at, where somebody asks for it."""
    if PICTURES:
        page.picture(Path(PICTURES) / f"{name}.png")


def fill(page: Browser, **fields: str) -> None:
    for name, value in fields.items():
        page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)}")


def test_a_model_of_plain_text_continues_it(page: Browser) -> None:
    page.run("document.getElementById('clear').click()")
    assert page.run("document.getElementById('mode').value") == "pad"
    fill(page, model="plain", mode="pad", beside="", text="the cat", max_tokens="8", seed="1")
    page.run(SEND)
    page.wait_for(IDLE)
    assert page.run("turns.map((turn) => turn.role).join()") == "user,assistant"
    assert page.run("turns[1].tokens.length") == 8
    assert page.run("Boolean(turns[1].error)") is False
    keep(page, "pad")


def test_a_chat_and_its_buttons(page: Browser) -> None:
    page.run("document.getElementById('clear').click()")
    fill(page, model="chats", mode="chat", beside="", text="<b>the cat</b>", max_tokens="6", seed="")
    page.run(SEND)
    page.wait_for(IDLE)
    assert page.run("document.querySelector('.user').textContent").endswith("<b>the cat</b>")  # text, not markup
    first = page.run("turns[1].content")
    page.run("[...document.querySelectorAll('.assistant button')].find((one) => one.textContent === 'again').click()")
    page.wait_for("running !== null || turns[1].content !== " + json.dumps(first))
    page.wait_for(IDLE)
    assert page.run("turns.length") == 2
    page.run("[...document.querySelectorAll('.user button')].find((one) => one.textContent === 'edit').click()")
    assert page.run("turns.length") == 0
    assert page.run("document.getElementById('text').value") == "<b>the cat</b>"


def test_two_models_side_by_side_keep_their_own_history(page: Browser) -> None:
    page.run("document.getElementById('clear').click()")
    fill(page, model="chats", mode="chat", beside="plain", text="we read", max_tokens="5", seed="3")
    page.run(SEND)
    page.wait_for(IDLE)
    assert page.run("document.querySelectorAll('.pair > .assistant').length") == 2
    assert page.run("[turns[1].model, turns[1].other.model].join()") == "chats,plain"
    history = page.run("JSON.stringify(question('plain', (turn) => turn.other || turn)[1].messages)")
    assert json.loads(history)[1]["content"] == page.run("turns[1].other.content")
    keep(page, "pair")
    page.resize(390, 800)
    assert page.run("document.documentElement.scrollWidth") <= 390
    boxes = page.run("[...document.querySelectorAll('.pair > div')].map((one) => one.getBoundingClientRect().left)")
    assert boxes[0] == boxes[1]  # below each other on a phone
    keep(page, "phone")


def test_every_control_has_a_name(page: Browser) -> None:
    unnamed = page.run(
        "[...document.querySelectorAll('input,select,textarea,button')]"
        ".filter((one) => !(one.labels && one.labels.length) && !one.textContent.trim()).map((one) => one.id)"
    )
    assert unnamed == []
