"""Every architecture to every target, and there compared with what its own runtime says."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint, words
from inkling import checkpoint, cli, export, importers, models, peft
from inkling.checkpoint import StoredModel
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe, train_char

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gemma2": [{"num_key_value_heads": 2, "sliding_window": 40}],
    "mistral": [{}, {"sliding_window": 30}],
    "deepseek_v2": [{"q_lora_rank": 24, "kv_lora_rank": 20, "first_k_dense_replace": 1}],
    "deepseek_v3": [{"q_lora_rank": 24, "kv_lora_rank": 20, "num_experts": 4, "v_head_dim": 12}],
    "mixtral": [{"num_key_value_heads": 2, "num_experts": 4}],
    "qwen3_moe": [{"norm_topk_prob": True, "num_experts": 12, "num_experts_per_tok": 3}, {"decoder_sparse_step": 2}],
    "llama": [
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        {"num_key_value_heads": 2},
        {"attention_bias": True, "tie_word_embeddings": True},
    ],
    "qwen3": [{"num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}],
}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def cases() -> list[Any]:
    return [
        pytest.param({"model_type": name, **variant}, id="-".join([name, *variant]))
        for name in models.names()
        for variant in VARIANTS.get(name, [{}])
    ]


@pytest.fixture(scope="module", params=cases())
def stored(
    request: pytest.FixtureRequest, small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> StoredModel:
    folder = tmp_path_factory.mktemp(request.param["model_type"])
    return checkpoint.open_model(random_checkpoint(folder, request.param, small_tokenizer))


@pytest.mark.filterwarnings("ignore")  # of transformers and of torch's exporter
@pytest.mark.parametrize("name", export.names())
def test_what_leaves_arrives(stored: StoredModel, name: str, tmp_path: Path) -> None:
    target = export.load(name)
    if target.objections(stored.config, stored.tokenizer):
        pytest.skip("; ".join(target.objections(stored.config, stored.tokenizer)))
    kind = "f32"
    target.write(stored, tmp_path / "out", kind)
    found = target.verify(stored, tmp_path / "out", kind)
    assert found is not None
    if stored.config.model_type == "qwen2" and name == "hf":
        # transformers 5 brings every text for a qwen2 to Unicode's NFC, whatever its tokenizer.json says.
        assert found.problems == [
            f"{found.num_different_strings} of {found.num_strings} strings are tokenized otherwise"
        ]
    else:
        assert found.problems == []
    assert 0 <= found.kl < (1e-5 if name in ("gguf", "ollama") else 1e-6)
    if stored.config.model_type != "gpt2":  # whose activation llama.cpp rounds to fp16, which can turn ties round
        assert found.num_same_greedy == found.num_greedy
    if name != "onnx":
        assert found.num_strings > 200


def ascii_characters(texts: list[str]) -> Tokenizer:
    """One token for each byte and no merge: what plain English text leaves of the character level."""
    return train_char([text.replace("ü", "u") for text in texts])


@pytest.mark.parametrize(
    "tokenizer_of", [train_char, ascii_characters, lambda texts: train_bpe(texts, 500, pattern="llama3")]
)
def test_tokens_in_llama_cpp(tokenizer_of: Any, tmp_path: Path) -> None:
    tokenizer = tokenizer_of([words(seed, 400) for seed in range(3)])
    tokenizer.chat_template = CHATML
    folder = random_checkpoint(tmp_path / "run", {"model_type": "llama"}, tokenizer)
    stored, target = checkpoint.open_model(folder), export.load("gguf")
    target.write(stored, tmp_path / "model.gguf", "f32")
    found = target.verify(stored, tmp_path / "model.gguf", "f32")
    assert found is not None
    assert found.problems == []
    assert found.num_different_strings == 0
    assert found.same_chat_template is True
    back = importers.read(tmp_path / "model.gguf")[1].tokenizer
    assert back.encode(words(9, 50)) == tokenizer.encode(words(9, 50))


def test_a_verification_that_fails_leaves_nothing_under_the_name(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = random_checkpoint(tmp_path / "run", {"model_type": "llama"}, small_tokenizer)
    layout = export.load("gguf").layout  # type: ignore[attr-defined]
    monkeypatch.setattr(layout.Layout, "to_gguf", lambda self, name, array, *heads: array)  # forgets the rotary order
    out = tmp_path / "model.gguf"
    assert cli.main(["export", str(run), "gguf", "--type", "f32", "-o", str(out)]) == 1
    assert "reads it otherwise: the probabilities differ" in capsys.readouterr().err
    assert not out.exists()


def test_bad_requests_are_refused_before_anything_is_written(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = random_checkpoint(tmp_path / "run", {"model_type": "speedrun"}, small_tokenizer)
    before = sorted(tmp_path.rglob("*"))
    for arguments, what in [
        ([str(run), "gguf", "-o", str(tmp_path / "x")], "llama.cpp does not compute speedrun"),
        ([str(run), "hf", "-o", str(tmp_path / "x")], "transformers does not compute speedrun"),
        ([str(run), "gguf", "--type", "q8", "-o", str(tmp_path / "x")], "did you mean 'q8_0'"),
        ([str(run), "ggfu", "-o", str(tmp_path / "x")], "did you mean 'gguf'"),
        ([str(tmp_path / "none"), "gguf"], "there is no run"),
    ]:
        assert cli.main(["export", *arguments]) == 1
        assert what in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    run = random_checkpoint(tmp_path / "other", {"model_type": "llama"}, small_tokenizer)
    (tmp_path / "x").write_text("precious")
    assert cli.main(["export", str(run), "gguf", "-o", str(tmp_path / "x")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "x").read_text() == "precious"


@pytest.mark.filterwarnings("ignore")
def test_left_padded_rows_of_the_onnx_graph_equal_rows_alone(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = random_checkpoint(tmp_path / "run", {"model_type": "gpt2"}, small_tokenizer)
    stored = checkpoint.open_model(run)
    export.load("onnx").write(stored, tmp_path / "out", "f32")
    model, _ = checkpoint.load_model(run)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[5, 9, 2, 44, 7, 3], [0, 0, 0, 11, 8, 6]])
    mask = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])
    past = {
        entry.name: np.zeros((2, 4, 0, SMALL_SHAPE["hidden_size"] // 4), np.float32)
        for entry in session.get_inputs()[2:]
    }
    logits = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, **past})[0]
    with torch.inference_mode():
        for row, length in ((0, 6), (1, 3)):
            alone = model(torch.tensor(ids[row : row + 1, 6 - length :]))[0]
            np.testing.assert_allclose(logits[row, 6 - length :], alone.numpy(), rtol=1e-4, atol=1e-5)


def test_the_modelfile_speaks_the_models_chat_language(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(_saved(small_tokenizer, tmp_path / "tokenizer"))
    tokenizer.chat_template = CHATML
    stored = checkpoint.open_model(random_checkpoint(tmp_path / "run", {"model_type": "qwen3"}, tokenizer))
    export.load("ollama").write(stored, tmp_path / "out", "q8_0")
    lines = (tmp_path / "out" / "Modelfile").read_text()
    assert lines.startswith("FROM ./model.gguf\n")
    assert "<|im_start|>assistant" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines


def _saved(tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir()
    tokenizer.save(folder)
    return folder


def test_the_model_card_says_where_the_model_comes_from(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = random_checkpoint(tmp_path / "run", {"model_type": "llama"}, small_tokenizer)
    record = checkpoint.RunRecord(
        status="finished",
        settings={"seed": 7, "optimizer": "muon"},
        data={"folder": str(tmp_path / "gone")},
        results={"validation": {"val_loss": 1.25, "val_bits_per_byte": 0.5}},
    )
    checkpoint.write_run(run, record)
    assert cli.main(["export", str(run), "hf", "-o", str(tmp_path / "out"), "--no-verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verification"] is None
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("| seed | 7 |", "| val_bits_per_byte | 0.5000 |", "no longer at hand", "license: other"):
        assert part in card


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["qwen3", "gpt2"])
def test_an_adapter_leaves_by_itself(
    model_type: str, small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    base = random_checkpoint(tmp_path / "base", {"model_type": model_type}, small_tokenizer)
    model, tokenizer = checkpoint.load_model(base)
    settings = peft.AdapterSettings(rank=4)
    peft.attach(model, settings)
    weights = peft.adapter_weights(model)
    with torch.no_grad():
        for tensor in weights.values():
            tensor.normal_(0, 0.1)
    run, out = tmp_path / "run", tmp_path / "out"
    checkpoint.save_model(run, models.without_memory(model.config), tokenizer, peft.merged_weights(model))
    command = ["export", str(run), "hf", "--adapter", "-o", str(out)]
    assert cli.main(command) == 1
    assert "was not tuned with an adapter" in capsys.readouterr().err
    turned = model_type == "gpt2"
    peft.write_adapter(run / "adapter", weights, settings, base=str(base), base_sha256="", turned=turned)
    tokenizer.save(run / "adapter")
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["verification"]
    assert found["runtime"].startswith("peft")
    assert found["kl"] < 1e-6
    assert found["num_same_greedy"] == found["num_greedy"] > 0
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 3 + [".md", ".safetensors"]
    assert cli.main(["export", str(run), "gguf", "--adapter"]) == 1
    assert "--adapter is for hf" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [["export", "gguf"], ["export", "hf"], ["export", "ollama"], ["quantize", "int8"]])
def test_a_full_disk_leaves_nothing(
    command: list[str], small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = random_checkpoint(tmp_path / "run", {"model_type": "llama", "hidden_size": 128}, small_tokenizer)
    before = sorted(tmp_path.iterdir())
    verb, what = command
    kind = ["--type", "f32", "--no-verify"] if verb == "export" else []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        status = cli.main([verb, str(run), what, *kind, "-o", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert status == 1
    assert "the disk is full" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
