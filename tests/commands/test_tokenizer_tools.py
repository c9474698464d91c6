"""Comparing, converting, mending and growing tokenizers from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from conftest import words
from inkling import checkpoint, models
from inkling.cli import main
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

TEXTS = [words(seed, 300) for seed in range(3)]


@pytest.fixture
def tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for size in (300, 500):
        train_bpe(TEXTS, size, pattern="gpt2").save(tmp_path / str(size))
    (tmp_path / "text.txt").write_text(words(9, 400))
    return ["300", "500"]


def test_compare(tokenizers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tokenizer", "compare", *tokenizers, "--text", str(tmp_path / "text.txt"), "--hidden-size", "64"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.index("500") < shown.index("300")
    assert main([*arguments, "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)
    size = Tokenizer.load(tokenizers[1]).vocab_size
    assert large["embedding_parameters"] == 64 * size
    text = (tmp_path / "text.txt").read_text()
    for row, source in zip((small, large), tokenizers, strict=True):
        ids = Tokenizer.load(source).encode(text)
        assert row["bytes_per_token"] == pytest.approx(len(text.encode()) / len(ids))
        lengths = [len(Tokenizer.load(source).token_bytes[number]) for number in ids]
        assert row["single_byte_share"] == pytest.approx(lengths.count(1) / len(ids))


def test_convert_and_repair(tokenizers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "convert", tokenizers[0], "--to", "gpt2", "-o", str(tmp_path / "gpt2"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["encoder.json", "vocab.bpe"]
    (tmp_path / "gpt2" / "vocab.bpe").unlink()
    assert main(["tokenizer", "repair", str(tmp_path / "gpt2")]) == 0
    assert "there were no merges" in capsys.readouterr().out
    assert main(["tokenizer", "repair", str(tmp_path / "gpt2"), "-o", str(tmp_path / "mended"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["found"]
    text = words(5, 200)
    assert Tokenizer.load(tmp_path / "mended").encode(text) == Tokenizer.load(tokenizers[0]).encode(text)
    assert main(["tokenizer", "repair", str(tmp_path / "mended")]) == 0
    assert capsys.readouterr().out == "nothing is wrong with it\n"
    assert main(["tokenizer", "repair", str(tmp_path / "mended"), "-o", str(tmp_path / "mended")]) == 1


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
@pytest.mark.filterwarnings("ignore")
def test_rows_of_the_embedding_follow_new_tokens(tmp_path: Path, arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = train_bpe(TEXTS, 300, pattern="gpt2")
    sizes = next(iter(models.load(arch).SIZES.values()))
    model = models.from_config(
        {**sizes, "model_type": arch, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 64}
    )
    checkpoint.save_model(tmp_path / "run", model, tokenizer)
    arguments = ["tokenizer", "add", str(tmp_path / "run"), "<|tool|>", "the cat", "-o", str(tmp_path / "grown")]
    arguments += ["--special", "--pad-to-multiple", "64", "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    size = tokenizer.vocab_size
    assert said["tokens"] == {"<|tool|>": size, "the cat": size + 1}
    old, _ = checkpoint.load_model(tmp_path / "run")
    grown, new_tokenizer = checkpoint.load_model(tmp_path / "grown")
    assert grown.config.vocab_size == said["embedding_rows"] == -(-(size + 2) // 64) * 64
    ids = torch.tensor([tokenizer.encode(TEXTS[0])[:40]])
    with torch.no_grad():
        before, after = old(ids), grown(ids)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "grown")(ids).logits
    torch.testing.assert_close(after[..., :size], before, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs, after, rtol=0, atol=1e-4)
    rows = old.state_dict()
    table = {name: weight for name, weight in grown.state_dict().items() if weight.shape != rows[name].shape}
    assert table
    for name, weight in table.items():
        assert torch.equal(weight[:size], rows[name])
        spelled = tokenizer.encode("the cat")
        torch.testing.assert_close(weight[size + 1], weight[spelled].mean(dim=0))
    assert new_tokenizer.encode("<|tool|>", allow_special=True) == [size]
    assert size not in new_tokenizer.encode("<|tool|>")
    assert main(arguments) == 2


def test_tokens_are_added_to_a_tokenizer_alone(tokenizers: list[str], tmp_path: Path) -> None:
    arguments = ["tokenizer", "add", tokenizers[0], "Inkling", "-o", str(tmp_path / "more")]
    assert main(arguments) == 0
    old, new = Tokenizer.load(tokenizers[0]), Tokenizer.load(tmp_path / "more")
    assert new.encode("an Inkling!") == [*old.encode("an "), old.vocab_size, *old.encode("!")]
    assert new.decode(new.encode("an Inkling!")) == "an Inkling!"
    assert main(["tokenizer", "add", str(tmp_path / "more"), "Inkling", "-o", str(tmp_path / "x")]) == 1
