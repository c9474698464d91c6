"""A GGUF file that lies: no crash, nothing read past the end, one line that says what is wrong."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf
from conftest import random_checkpoint
from inkling import checkpoint, importers
from inkling.errors import InklingError, ModelError
from inkling.export import gguf as target
from inkling.gguf.reader import GGUFFile
from inkling.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def path(small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    shape = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    random_checkpoint(folder / "run", shape, small_tokenizer)
    target.write(checkpoint.open_model(folder / "run"), folder / "model.gguf", "q8_0")
    return folder / "model.gguf"


def test_values_and_tensors_are_those_that_the_package_reads(path: Path) -> None:
    ours, theirs = GGUFFile(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.values == fields
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        assert ours.tensors[tensor.name].type_name == tensor.tensor_type.name
        wanted = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.array(tensor.name), wanted)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_in_a_line(
    path: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(path.read_bytes())
    header = len(content) - sum(tensor.num_bytes for tensor in GGUFFile(path).tensors.values())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 6))):
        if content:
            place = data.draw(st.integers(0, min(header, len(content)) - 1))
            value = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]) | st.integers(0, 255))
            content[place : place + data.draw(st.sampled_from([1, 4, 8]))] = bytes([value])
    bad = tmp_path_factory.getbasetemp() / "bad.gguf"
    bad.write_bytes(content)
    with contextlib.suppress(InklingError):
        importers.read(bad)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("block_count", 2**32 - 1, "num_hidden_layers"),
        ("block_count", 4000, "tensors cannot be 4,000 layers"),
        ("embedding_length", 2**32 - 1, "hidden_size"),
        ("expert_count", 2**32 - 1, "experts"),
        ("expert_count", 4000, "does not say its llama.expert_used_count"),
        ("attention.head_count", 0, "num_attention_heads"),
    ],
)
def test_a_shape_without_end(path: Path, tmp_path: Path, key: str, value: int, what: str) -> None:
    """Each is one number in a small file, and would be a model that fills the memory."""
    content = path.read_bytes()
    name = f"llama.{key}".encode()
    spelled = struct.pack("<Q", len(name)) + name + struct.pack("<I", 4)
    at = content.find(spelled)
    if at >= 0:
        at += len(spelled)
        content = content[:at] + struct.pack("<I", value) + content[at + 4 :]
    else:  # one key more, before the first one; the data stays aligned through a key that pads it
        count = struct.unpack_from("<Q", content, 16)[0]
        more = spelled + struct.pack("<I", value)
        filler = -(len(more) + 8 + 1 + 4 + 8) % 32
        more += struct.pack("<Q", 1) + b"x" + struct.pack("<IQ", 8, filler) + b"x" * filler
        content = content[:16] + struct.pack("<Q", count + 2) + more + content[24:]
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=what):
        importers.read(tmp_path / "bad.gguf")


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ((9, 1, 0), "version"),
        ((3, 2**63, 0), "too small"),
        ((3, 0, 2**40), "too small"),
    ],
)
def test_impossible_counts(tmp_path: Path, fields: tuple[int, int, int], what: str) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + struct.pack("<IQQ", *fields) + b"\0" * 64)
    with pytest.raises(ModelError, match=what):
        GGUFFile(bad)


def test_a_string_longer_than_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62) + b"\0" * 64)
    with pytest.raises(ModelError, match="too small"):
        GGUFFile(bad)


def test_a_tensor_outside_of_the_file(tmp_path: Path) -> None:
    info = struct.pack("<Q", 1) + b"x" + struct.pack("<IQQIQ", 2, 1 << 20, 1 << 20, 0, 0)
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info + b"\0" * 64)
    with pytest.raises(ModelError, match="outside"):
        GGUFFile(bad)
