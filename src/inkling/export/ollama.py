"""Ollama: a folder with a GGUF file and the `Modelfile` that `ollama create NAME -f Modelfile` reads."""

from __future__ import annotations

import json
from pathlib import Path

from inkling import files
from inkling.checkpoint import StoredModel
from inkling.export import gguf
from inkling.export._verification import Verification
from inkling.models import ModelConfig
from inkling.tokenizer import Tokenizer

TYPES = gguf.TYPES
MODEL_FILE, MODELFILE = "model.gguf", "Modelfile"
# Ollama's own template language, which is Go's, for what ChatML is in Jinja.
_CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
_PLAIN = "{{ .Prompt }}"


def objections(config: ModelConfig, tokenizer: Tokenizer | None) -> list[str]:
    """Those of GGUF, and a chat template that cannot be said in Ollama's language."""
    reasons = gguf.objections(config, tokenizer)
    if tokenizer is not None and tokenizer.chat_template and "<|im_start|>" not in tokenizer.chat_template:
        reasons.append("Ollama's template language is its own, and only ChatML is translated; use gguf")
    return reasons


def default_path(stored: StoredModel, type_name: str) -> Path:
    """`runs/notes` → `notes-ollama`, here."""
    return Path(f"{stored.folder.resolve().name}-ollama")


def write(stored: StoredModel, path: Path, type_name: str) -> None:
    """Write both files."""
    with files.new_folder(path) as folder:
        gguf.write(stored, folder / MODEL_FILE, type_name)
        files.write_text(folder / MODELFILE, _modelfile(stored))


def _modelfile(stored: StoredModel) -> str:
    chats = stored.tokenizer.chat_template is not None
    stops = ["<|im_end|>"] if chats else []
    stops += [text for text, number in stored.tokenizer.special_tokens.items() if number == stored.tokenizer.eot_id]
    lines = [
        f"FROM ./{MODEL_FILE}",
        f'TEMPLATE """{_CHATML if chats else _PLAIN}"""',
        f"PARAMETER num_ctx {stored.config.max_position_embeddings}",
        *(f"PARAMETER stop {json.dumps(stop)}" for stop in stops),
    ]
    return "\n".join(lines) + "\n"


def verify(stored: StoredModel, path: Path, type_name: str) -> Verification | None:
    """The GGUF file, in llama.cpp."""
    return gguf.verify(stored, path / MODEL_FILE, type_name)
