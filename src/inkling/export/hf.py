"""A Hugging Face folder: for `transformers`, vLLM, SGLang, MLX and llama.cpp's converter, with a model card."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkling import checkpoint, files
from inkling.checkpoint import StoredModel
from inkling.export._card import model_card
from inkling.export._chat import CHAT, render
from inkling.export._verification import Expected, Verification, expected, verdict
from inkling.models import ModelConfig
from inkling.tokenizer import Tokenizer

TYPES = ("f32", "f16", "bf16")
_TORCH_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_MAX_KL = {"f32": 1e-6, "f16": 1e-3, "bf16": 1e-2}
_UNKNOWN_TO_OTHERS = {"speedrun", "workbench"}


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """Why `transformers` could not open such a model; empty when it can."""
    return [f"transformers does not compute {config.model_type}"] if config.model_type in _UNKNOWN_TO_OTHERS else []


def default_path(stored: StoredModel, type_name: str) -> Path:
    """`runs/notes` → `notes-hf`, here."""
    return Path(f"{stored.folder.resolve().name}-hf")


def write(stored: StoredModel, path: Path, type_name: str) -> None:
    """Write the folder: configuration, weights, tokenizer, generation settings, model card, loss curve."""
    with files.new_folder(path) as folder:
        values = json.loads((stored.folder / checkpoint.CONFIG_FILE).read_text(encoding="utf-8"))
        files.write_json(folder / checkpoint.CONFIG_FILE, {**values, "torch_dtype": _NAMES[type_name]})
        stored.tokenizer.save(folder, max_length=stored.config.max_position_embeddings)
        for name in ("generation_config.json", "loss.png"):
            if (stored.folder / name).is_file():
                shutil.copyfile(stored.folder / name, folder / name)
        wanted = _TORCH_TYPES[type_name]
        weights = {name: tensor.to(wanted) for name, tensor in stored.tensors(stored.shapes)}
        checkpoint.save_weights(folder, weights)
        files.write_text(folder / "README.md", model_card(stored, path.name))


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """Open the folder in `transformers`, and compare; None where that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    wanted = expected(stored)
    table, greedy, different, same_chat = _ask_transformers(path, wanted, stored)
    return verdict(
        f"transformers {importlib.metadata.version('transformers')}",
        wanted,
        [table],
        greedy,
        max_kl=_MAX_KL[type_name],
        exact=type_name == "f32",
        num_different=different,
        same_chat=same_chat,
    )


@torch.inference_mode()
def _ask_transformers(
    path: Path, wanted: Expected, stored: StoredModel
) -> tuple[np.ndarray, list[int], int, bool | None]:
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    sees = stored.config.model_type == "llava"
    kind: Any = transformers.LlavaForConditionalGeneration if sees else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    model.eval()
    ids = torch.tensor([wanted.prompt_ids])
    logits = model(input_ids=ids).logits[0, torch.tensor(wanted.prefix_lengths) - 1]
    greedy: list[int] = []
    if wanted.greedy_ids:
        end = stored.tokenizer.eot_id
        length = len(wanted.greedy_ids)
        generated = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=length,
            eos_token_id=end,
            pad_token_id=end,
        )
        greedy = generated[0, ids.shape[1] :].tolist()
    special = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in wanted.texts]
    different = sum(a != b for a, b in zip(special, wanted.special_ids, strict=True))
    same_chat = None
    if stored.tokenizer.chat_template is not None:
        rendered = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        same_chat = rendered == render(stored.tokenizer)
    return logits.double().log_softmax(-1).numpy(), greedy, different, same_chat
