"""A Hugging Face folder: for `transformers`, vLLM, SGLang, MLX and llama.cpp's converter, with a model card."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from inkling import checkpoint, files
from inkling.checkpoint import StoredModel
from inkling.export._card import model_card
from inkling.export._chat import CHAT
from inkling.export._verification import Answers, Questions, Verification, questions, verdict
from inkling.models import ModelConfig, llava
from inkling.tensor_files import stream_tensors
from inkling.tokenizer import Tokenizer

TYPES = ("f32", "f16", "bf16")
_TORCH_TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_MAX_KL = {"f32": 1e-6, "f16": 1e-3, "bf16": 1e-2}
_BICUBIC = 3
"""Pillow's number."""
_UNKNOWN_TO_OTHERS = {"speedrun", "workbench"}


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """Why `transformers` could not open such a model; empty when it can."""
    if config.model_type in _UNKNOWN_TO_OTHERS:
        return [f"transformers does not compute {config.model_type}"]
    return config.beyond_transformers


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
        if isinstance(stored.config, llava.Config):
            for name, content in _processor_files(stored.config, stored.tokenizer).items():
                files.write_json(folder / name, content)
        tensors = (tensor for _, tensor in stored.tensors(stored.shapes))
        stream_tensors(folder / checkpoint.WEIGHTS_FILE, stored.shapes, _TORCH_TYPES[type_name], tensors)
        files.write_text(folder / "README.md", model_card(stored, path.name))


def _processor_files(config: llava.Config, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """What `transformers.AutoProcessor` makes of pictures: the pixels of `inkling.data.pictures`, and their tokens."""
    vision = config.vision_config
    pixels = {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": vision.image_size, "width": vision.image_size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    tokens = {
        "processor_class": "LlavaProcessor",
        "image_token": tokenizer.decode([config.image_token_index], skip_special=False),
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": "full",
        "num_additional_image_tokens": 0,
    }
    return {
        "preprocessor_config.json": {**pixels, "processor_class": "LlavaProcessor"},
        "processor_config.json": tokens,
    }


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """Open the folder in `transformers`, and compare; None where that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return None
    import transformers

    sees = stored.config.model_type == "llava"
    kind: Any = transformers.LlavaForConditionalGeneration if sees else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    asked = questions(stored)
    answers = ask(model, path, asked, stored, f"transformers {importlib.metadata.version('transformers')}")
    del model
    return verdict(stored, asked, answers, max_kl=_MAX_KL[type_name], exact=type_name == "f32")


@torch.inference_mode()
def ask(model: Any, path: Path, asked: Questions, stored: StoredModel, runtime: str) -> Answers:
    """What a model of `transformers`, and the tokenizer in `path`, say."""
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    model.eval()
    ids, end = torch.tensor([asked.prompt_ids]), stored.tokenizer.eot_id
    logits = model(input_ids=ids).logits[0, torch.tensor(asked.prefix_lengths) - 1]
    greedy: list[int] = []
    if asked.num_greedy:
        generated = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=asked.num_greedy,
            eos_token_id=end,
            pad_token_id=end,
        )
        greedy = generated[0, ids.shape[1] :].tolist()
    chat = None
    if stored.tokenizer.chat_template is not None:
        chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    special = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked.texts]
    return Answers(runtime, [logits.double().log_softmax(-1).numpy()], greedy, special_ids=special, chat=chat)
