"""A decoding step in C++, compiled on this machine when first needed, and never required.

`step.cpp` computes one new token of several sequences of a llama-like model, from the weights and the paged keys and
values that torch holds. Where there is no compiler, or the model is of another kind, torch computes the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkling.infer.paged import PagedMemory
from inkling.models import LanguageModel, rotary_table
from inkling.quantize import int4, int8
from inkling.quantize._modules import QuantizedLinear, QuantizedTable

_SOURCE = Path(__file__).with_name("step.cpp")
_FLAGS = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17"]
_COMPILE_TIMEOUT_S = 120
_LANES = 16
_KINDS = {torch.float32: 0, torch.bfloat16: 1}
_INT8, _INT4 = 2, 3


class UnavailableError(Exception):
    """There is no native step for this model on this machine; the message says why."""


class _Matrix(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("group", ctypes.c_int32),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("attention_norm", "feed_forward_norm", "query_norm", "key_norm")),
        *((name, _Matrix) for name in ("query", "key", "value", "output", "gate", "up", "down")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("final_norm", "cosines", "sines")),
        ("embedding", _Matrix),
        ("head", _Matrix),
        *(
            (name, ctypes.c_int32)
            for name in (
                "num_layers",
                "hidden",
                "heads",
                "key_value_heads",
                "head_dim",
                "intermediate",
                "vocabulary",
            )
        ),
        ("epsilon", ctypes.c_float),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "blocks", "keys", "values", "scratch", "logits")),
        ("layer_stride", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("rows", "max_blocks", "memory_kind", "max_positions", "threads")),
    ]


@cache
def _library() -> Any:
    """The compiled step. Raises UnavailableError without a compiler, or when it fails."""
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise UnavailableError("there is no C++ compiler")
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(source + " ".join([compiler, *_FLAGS, platform.machine(), _processor()]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkling" / "native"
    path = folder / f"step-{key[:24]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(temporary)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"the compiler failed ({error})") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise UnavailableError(f"the compiler failed ({lines[0][:150]})")
        temporary.replace(path)
    library = ctypes.CDLL(str(path))
    library.inkling_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.inkling_step.restype = None
    library.inkling_scratch_floats.argtypes = [ctypes.c_void_p, *([ctypes.c_int32] * 3)]
    library.inkling_scratch_floats.restype = ctypes.c_int64
    return library


def _processor() -> str:
    """What `-march=native` stands for here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), "")


class NativeStep:
    """The step of one model.

    Raises UnavailableError for a model or a machine that it cannot compute.
    """

    def __init__(self, model: LanguageModel, memory: PagedMemory) -> None:
        config = model.config
        if config.model_type not in ("llama", "qwen2", "qwen3") or model.device.type != "cpu":
            raise UnavailableError(f"there is none for {config.model_type} on {model.device.type}")
        widths = (config.hidden_size, config.intermediate_size, config.head_dim)
        if any(width % _LANES for width in widths) or memory.keys.dtype not in _KINDS:
            raise UnavailableError("it needs widths that are multiples of 16, in fp32 or bf16")
        self._library = _library()
        self._memory = memory
        self._kept: list[Tensor] = []  # what the pointers point at
        decoder: Any = model
        stack = decoder.model
        layers = [self._layer(block) for block in stack.layers]
        self._layers = (_Layer * len(layers))(*layers)
        positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
        shape: Any = config
        cosines, sines = rotary_table(
            positions, shape.head_dim, shape.rope_theta, torch.float32, shape.rope_scaling
        )  # (positions, 1, D/2) each
        self._model = _Model(
            layers=self._layers,
            final_norm=self._vector(stack.norm.weight),
            cosines=self._vector(cosines),
            sines=self._vector(sines),
            embedding=self._matrix(stack.embed_tokens),
            head=self._matrix(model.head),
            num_layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            epsilon=decoder.config.rms_norm_eps,
        )
        self._max_positions = config.max_position_embeddings
        self._vocab_size = config.vocab_size
        self._scratch = torch.empty(0)

    def __call__(self, tokens: Sequence[int], positions: Sequence[int], blocks: Sequence[Sequence[int]]) -> Tensor:
        """Store the keys and values of one new token of each sequence, and what comes next: logits (R, V) fp32.

        Args:
            positions: Place of each token in its sequence.
            blocks: Of each sequence.
        """
        rows, most = len(tokens), max(map(len, blocks))
        table = torch.zeros(rows, most, dtype=torch.int32)
        for row, own in enumerate(blocks):
            table[row, : len(own)] = torch.tensor(own, dtype=torch.int32)
        ids, places = torch.tensor(tokens, dtype=torch.int32), torch.tensor(positions, dtype=torch.int32)
        logits = torch.empty(rows, self._vocab_size)
        threads = torch.get_num_threads()
        model = ctypes.byref(self._model)
        need = self._library.inkling_scratch_floats(model, rows, self._max_positions, threads)
        if need > len(self._scratch):
            self._scratch = torch.empty(need)
        keys = self._memory.keys
        step = _Step(
            tokens=ids.data_ptr(),
            positions=places.data_ptr(),
            blocks=table.data_ptr(),
            keys=keys.data_ptr(),
            values=self._memory.values.data_ptr(),
            scratch=self._scratch.data_ptr(),
            logits=logits.data_ptr(),
            layer_stride=keys.stride(0),
            rows=rows,
            max_blocks=most,
            memory_kind=_KINDS[keys.dtype],
            max_positions=self._max_positions,
            threads=threads,
        )
        self._library.inkling_step(model, ctypes.byref(step))
        return logits

    def _layer(self, block: Any) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        norms = [getattr(norm, "weight", None) for norm in (attention.q_norm, attention.k_norm)]
        return _Layer(
            attention_norm=self._vector(block.input_layernorm.weight),
            feed_forward_norm=self._vector(block.post_attention_layernorm.weight),
            query_norm=self._vector(norms[0]) if norms[0] is not None else None,
            key_norm=self._vector(norms[1]) if norms[1] is not None else None,
            query=self._matrix(attention.q_proj),
            key=self._matrix(attention.k_proj),
            value=self._matrix(attention.v_proj),
            output=self._matrix(attention.o_proj),
            gate=self._matrix(mlp.gate_proj),
            up=self._matrix(mlp.up_proj),
            down=self._matrix(mlp.down_proj),
        )

    def _vector(self, values: Tensor) -> int:
        self._kept.append(values.detach().float().contiguous().clone())
        return self._kept[-1].data_ptr()

    def _pointer(self, tensor: Tensor) -> int:
        self._kept.append(tensor.detach().contiguous())
        return self._kept[-1].data_ptr()

    def _matrix(self, module: nn.Module) -> _Matrix:
        bias = getattr(module, "bias", None)
        pointer = None if bias is None else self._vector(bias)
        if isinstance(module, QuantizedLinear | QuantizedTable):
            matrix: Any = module.matrix
            rows, columns = matrix.shape
            if isinstance(matrix, int8.Matrix):
                scales = self._pointer(matrix.scales.bfloat16())
                return _Matrix(self._pointer(matrix.codes), scales, pointer, _INT8, rows, columns, 0)
            if not isinstance(matrix, int4.Matrix) or isinstance(module, QuantizedTable):
                raise UnavailableError("a table in a format that it cannot read")
            scales = self._pointer(matrix.scales_and_zeros.bfloat16().permute(1, 2, 0))  # (K/g, N, 2) -> (N, 2, K/g)
            return _Matrix(self._pointer(matrix.codes), scales, pointer, _INT4, rows, columns, matrix.group_size)
        weight: Any = module.weight
        if weight.dtype not in _KINDS:
            raise UnavailableError(f"weights in {weight.dtype}")
        rows, columns = weight.shape
        return _Matrix(self._pointer(weight), None, pointer, _KINDS[weight.dtype], rows, columns, 0)
