"""Adapters of one run, held at once and chosen by model name."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving import Running

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, peft
from inkling.commands import serve
from inkling.errors import ConfigError, ModelError
from inkling.infer.generate import generate
from inkling.infer.sampling import SamplingParams
from inkling.peft import AdapterSettings
from inkling.tensor_files import checksum
from inkling.tokenizer import Tokenizer

NAMES = ("base", "one", "two")


def write_adapter(base: Path, folder: Path, seed: int, **more: Any) -> Path:
    model, tokenizer = checkpoint.load_model(base)
    settings = AdapterSettings(rank=4, **more)
    peft.attach(model, settings, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for tensor in peft.adapter_weights(model).values():
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)) * 0.2)
    sha256 = checksum(base / "model.safetensors")
    peft.write_adapter(folder, peft.adapter_weights(model), settings, base=str(base), base_sha256=sha256)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    random_checkpoint(folder / "base", {"model_type": "qwen3", **SMALL_SHAPE}, small_tokenizer)
    random_checkpoint(folder / "other", {"model_type": "llama", **SMALL_SHAPE}, small_tokenizer)
    write_adapter(folder / "base", folder / "one", 1)
    write_adapter(folder / "base", folder / "two" / "adapter", 2, dora=True, targets=["q_proj", "down_proj"])
    return folder


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    adapters = [folder / "one", folder / "two"]
    found = Running(serve.Settings(runs=[folder / "base"], adapters=adapters, port=0, precision="fp32"))
    yield found
    found.stop()


def ask(running: Running, name: str, prompt: str) -> str:
    done = running.client().completions.create(
        model=name, prompt=prompt, max_tokens=12, temperature=0.9, seed=4, extra_body={"ignore_eos": True}
    )
    return done.choices[0].text


def test_each_name_writes_what_its_adapter_would(running: Running, folder: Path, small_tokenizer: Tokenizer) -> None:
    model, tokenizer = checkpoint.load_model(folder / "base")
    for name, held in (("one", folder / "one"), ("two", folder / "two" / "adapter")):
        stored = peft.read_adapter(held)
        peft.attach_stored(model, stored.settings, stored.weights, name=name)
    params = SamplingParams(max_tokens=12, temperature=0.9, seed=4, ignore_eos=True)
    texts = {}
    for name in NAMES:
        with peft.selected(model, None if name == "base" else name):
            texts[name] = "".join(generate(model, tokenizer, "the cat", params))
    assert len(set(texts.values())) == 3
    assert {name: ask(running, name, "the cat") for name in NAMES} == texts
    with ThreadPoolExecutor(12) as threads:
        asked = [(name, "the cat" if number % 2 else f"rain {number}") for number in range(4) for name in NAMES]
        together = list(threads.map(lambda one: ask(running, *one), asked))
    assert together == [ask(running, *one) for one in asked]


def test_models_and_embeddings(running: Running) -> None:
    listed = {one["id"]: one.get("parent") for one in httpx.get(f"{running.url}/v1/models").json()["data"]}
    assert listed == {"base": None, "one": "base", "two": "base"}
    vectors = [
        httpx.post(f"{running.url}/v1/embeddings", json={"model": name, "input": "the cat"}).json()["data"][0][
            "embedding"
        ]
        for name in NAMES
    ]
    assert vectors[0] != vectors[1] != vectors[2]
    assert running.service.num_open == 0


def test_an_adapter_of_another_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serve that run"):
        serve.build_service(serve.Settings(runs=[folder / "other"], adapters=[folder / "one"]))
    (tmp_path / "one").mkdir()
    for file in (folder / "one").iterdir():
        (tmp_path / "one" / file.name).write_bytes(file.read_bytes())
    model, _ = checkpoint.load_model(folder / "other")
    stored = peft.read_adapter(folder / "two" / "adapter")
    stored.weights["model.layers.0.self_attn.q_proj.A"] = torch.zeros(4, 3)
    with pytest.raises(ModelError, match="does not fit"):
        peft.attach_stored(model, stored.settings, stored.weights, name="x")
    with pytest.raises(ConfigError, match="two models of the name"):
        serve.build_service(serve.Settings(runs=[folder / "base"], adapters=[folder / "one", tmp_path / "one"]))
