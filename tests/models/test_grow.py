"""Growing a trained model: what it knew stays, and what is new is where it should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from conftest import random_checkpoint
from inkling import checkpoint, cli, models
from inkling.errors import ModelError
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer


@pytest.fixture(params=["llama", "gpt2", "gemma2", "mixtral", "speedrun"])
def model(request: pytest.FixtureRequest, small_tokenizer: Tokenizer, tmp_path: Path) -> LanguageModel:
    return checkpoint.load_model(random_checkpoint(tmp_path / "m", {"model_type": request.param}, small_tokenizer))[0]


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [3, 5])
def test_a_deeper_model_says_the_same_until_it_learns(model: LanguageModel, num_layers: int) -> None:
    grown = models.with_more_layers(model, num_layers)
    ids = torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    assert grown.config.num_hidden_layers == num_layers
    torch.testing.assert_close(grown(ids), model(ids), rtol=1e-4, atol=1e-4)
    with torch.enable_grad():
        F.cross_entropy(grown(ids).flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    new = [name for name, p in grown.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [name for name in new if "experts" not in name]
    with pytest.raises(ModelError, match="layers already"):
        models.with_more_layers(grown, num_layers)


def test_layers_that_take_turns_are_not_copied(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    values = {"model_type": "speedrun", "value_embeddings": True}
    model, _ = checkpoint.load_model(random_checkpoint(tmp_path / "m", values, small_tokenizer))
    with pytest.raises(ModelError, match="take turns"):
        models.with_more_layers(model, 4)


@torch.no_grad()
def test_a_longer_context_changes_what_it_says_of_short_texts_little(model: LanguageModel) -> None:
    kind = "linear" if model.config.model_type == "gpt2" else "ntk"
    grown = models.with_longer_context(model, 256, kind)  # type: ignore[arg-type]
    assert grown.config.max_position_embeddings == 256
    assert grown(torch.zeros(1, 200, dtype=torch.long)).isfinite().all()
    first = grown(torch.tensor([[5]]))
    torch.testing.assert_close(first, model(torch.tensor([[5]])), rtol=1e-4, atol=1e-4)  # place 0 stays place 0
    with pytest.raises(ModelError, match="already"):
        models.with_longer_context(grown, 256, kind)  # type: ignore[arg-type]
    if model.config.model_type == "gpt2":
        with pytest.raises(ModelError, match="learned"):
            models.with_longer_context(model, 256, "yarn")


def test_ntk_keeps_the_fastest_and_divides_the_slowest_frequency() -> None:
    plain = models.inverse_frequencies(32, 1e4)
    stretched = models.inverse_frequencies(32, models.ntk_theta(1e4, 32, 4.0))
    assert stretched[0] == plain[0]
    assert float(plain[-1] / stretched[-1]) == pytest.approx(4.0, rel=1e-5)


def test_the_command_writes_a_run_that_can_be_used(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = random_checkpoint(tmp_path / "run", {"model_type": "qwen3"}, small_tokenizer), tmp_path / "grown"
    command = ["grow", str(source), "-o", str(out)]
    assert cli.main(command) == 2
    assert "--context, --layers" in capsys.readouterr().err
    assert cli.main([*command, "--context", "512", "--layers", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["context"], said["layers"]) == (512, 4)
    scaling = json.loads((out / "config.json").read_text())["rope_scaling"]
    assert scaling == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert models.num_parameters(checkpoint.load_model(out)[0].config) == said["num_parameters"]
    assert cli.main([*command, "--context", "600"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert cli.main(["grow", str(out), "-o", str(tmp_path / "again"), "--context", "1024"]) == 1
    assert "stretched already" in capsys.readouterr().err
    assert cli.main(["grow", str(source), "-o", str(tmp_path / "small"), "--context", "64"]) == 1
    assert not (tmp_path / "small").exists()
