"""The package's own functions, and that importing it costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import inkling
from conftest import random_checkpoint
from inkling.errors import ModelError
from inkling.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("api") / "run", {"model_type": "qwen3"}, small_tokenizer)


def test_many_prompts_at_once(run: Path) -> None:
    model = inkling.load(run)
    prompts = ["the cat", "", "we read 12"]
    together = model.generate(prompts, max_tokens=12, seed=4)
    alone = [model.generate([prompt], max_tokens=12, seed=4)[0] for prompt in prompts]
    assert together == alone
    assert [len(one.token_ids) <= 12 for one in together] == [True] * 3
    assert "".join(model.stream("the cat", max_tokens=12, seed=4)) == together[0].text


def test_what_cannot_be_is_an_error(run: Path) -> None:
    model = inkling.load(run)
    with pytest.raises(ModelError, match="context"):
        model.generate(["the cat " * 200])
    with pytest.raises(ValueError, match="temprature"):
        model.generate(["a"], temprature=1)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        inkling.lod  # noqa: B018


def test_all_public_names_are_there_and_torch_is_not_imported_for_them() -> None:
    assert sorted(inkling.__all__) == ["Model", "__version__", "load"]
    for name in inkling.__all__:
        assert getattr(inkling, name)
    code = "import sys, inkling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
