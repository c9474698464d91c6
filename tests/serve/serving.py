"""A service to ask, for the tests of this folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import openai
import uvicorn

from conftest import SMALL_SHAPE, random_checkpoint
from inkling.commands import serve
from inkling.serve.app import build_app
from inkling.serve.service import Service
from inkling.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Running:
    """A service on a port of its own, in a thread."""

    def __init__(self, arguments: serve.Settings) -> None:
        self.service: Service = serve.build_service(arguments)
        self.socket = serve.listen(arguments)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(build_app(self.service), log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self._clients: list[openai.OpenAI] = []
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self.server.should_exit = True
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()

    def client(self, **more: Any) -> openai.OpenAI:
        given = {"api_key": "none", "max_retries": 0, "_strict_response_validation": True, **more}
        self._clients.append(openai.OpenAI(base_url=f"{self.url}/v1", **given))  # closed before the service stops
        return self._clients[-1]


def runs(folder: Path, tokenizer: Tokenizer) -> list[Path]:
    """A model of plain text, and one with a chat template."""
    chats = Tokenizer.load(_saved(tokenizer, folder / "tokenizer"))
    chats.chat_template = CHATML
    shape = {"model_type": "qwen3", **SMALL_SHAPE}
    return [
        random_checkpoint(folder / "plain", shape, tokenizer),
        random_checkpoint(folder / "chats", {**shape, "max_position_embeddings": 1024}, chats),
    ]


def _saved(tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir()
    tokenizer.save(folder)
    return folder


def start(folder: Path, tokenizer: Tokenizer) -> Running:
    """Both of them served, to whoever asks."""
    return Running(
        serve.Settings(
            runs=runs(folder, tokenizer),
            port=0,
            keys=folder / "keys",
            precision="fp32",
            max_sequences=8,
            max_queue=8,
        )
    )
