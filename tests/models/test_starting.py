"""What a command that opens a model imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from inkling import models

SHAPE = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3", "gemma2", "mixtral"])
def test_a_model_without_memory_does_not_import_torchs_compiler(architecture: str) -> None:
    """That takes a second."""
    config = models.load(architecture).Config.from_dict(SHAPE).to_dict()
    code = f"import sys; from inkling import models; models.without_memory(models.read_config({config!r})); "
    code += "print('torch._dynamo' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
