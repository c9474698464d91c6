"""Decoding steps in C++, compiled on this machine when first needed, and never required.

`step.cpp` computes and draws new tokens of several sequences of a llama-like model, from the weights and the paged keys
and values that torch holds. Where there is no compiler, or the model is of another kind, torch computes the same.
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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inkling.infer.paged import PagedMemory
from inkling.models import LanguageModel, rotary_table
from inkling.quantize import int4, int8
from inkling.quantize._modules import QuantizedLinear, QuantizedTable

_FOLDER = Path(__file__).parent
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
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "owners", "blocks", "wanted")),
        *((name, ctypes.c_void_p) for name in ("keys", "values", "scratch", "logits")),
        ("layer_stride", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in ("rows", "num_wanted", "max_blocks", "memory_kind", "max_positions", "threads")
        ),
    ]


class _Draws(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("seeds", "places", "temperatures", "limits", "ends", "written", "counts")
        ),
        *((name, ctypes.c_int32) for name in ("max_ends", "most", "vocabulary")),
    ]


class Span(NamedTuple):
    """New tokens of a sequence.

    Attributes:
        start: Place of the first in its sequence.
        blocks: Of its sequence.
    """

    token_ids: Sequence[int]
    start: int
    blocks: Sequence[int]


class PlainDraw(NamedTuple):
    """How a completion without penalties, filters or rules draws.

    Attributes:
        place: Tokens written before.
        limit: Tokens to write at most.
        end_ids: Tokens after which nothing follows.
    """

    seed: int
    place: int
    temperature: float
    limit: int = 1
    end_ids: Sequence[int] = ()


@cache
def _library() -> Any:
    """The compiled step. Raises UnavailableError without a compiler, or when it fails."""
    compiler = next((found for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)
    if compiler is None:
        raise UnavailableError("there is no C++ compiler")
    source = b"".join(path.read_bytes() for path in sorted(_FOLDER.glob("*.[ch]*")))
    key = hashlib.sha256(source + " ".join([compiler, *_FLAGS, platform.machine(), _processor()]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inkling" / "native"
    path = folder / f"step-{key[:24]}.so"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        command = [compiler, *_FLAGS, str(_FOLDER / "step.cpp"), "-o", str(temporary)]
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
    library.inkling_draw.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p]
    library.inkling_write.argtypes = [ctypes.c_void_p] * 3
    for function in (library.inkling_step, library.inkling_draw, library.inkling_write):
        function.restype = None
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

    Args:
        num_tokens: Tokens that can be drawn; the model may have more rows.

    Attributes:
        suits_prompts: Whether many rows take less time than in torch, which they do in AMX tiles and not in fp32.

    Raises UnavailableError for a model or a machine that it cannot compute.
    """

    def __init__(self, model: LanguageModel, memory: PagedMemory, num_tokens: int) -> None:
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
        self.suits_prompts = torch.cpu._is_amx_tile_supported() and layers[0].query.kind != _KINDS[torch.float32]
        self._max_positions = config.max_position_embeddings
        self._vocab_size = config.vocab_size
        self._num_tokens = num_tokens
        self._scratch = torch.empty(0)

    def __call__(self, spans: Sequence[Span], wanted: Sequence[int]) -> Tensor:
        """Store the keys and values of new tokens, and what comes next.

        Args:
            wanted: Places in the row of all new tokens after which logits are asked for.

        Returns:
            Logits (len(wanted), V) fp32.
        """
        given = _Rows(spans, wanted)
        step, logits = self._step(given)
        self._library.inkling_step(ctypes.byref(self._model), ctypes.byref(step))
        return logits

    def draw(self, logits: Tensor, draws: Sequence[PlainDraw]) -> list[int]:
        """The next token after each row of logits (R, V) fp32, -1 where the model has diverged."""
        assert logits.dtype == torch.float32
        assert logits.stride(1) == 1
        made = _Made(draws, 1, self._num_tokens)
        self._library.inkling_draw(logits.data_ptr(), logits.stride(0), len(draws), ctypes.byref(made.struct))
        found: list[int] = made.written[:, 0].tolist()
        return found

    def write(self, spans: Sequence[Span], draws: Sequence[PlainDraw]) -> list[list[int]]:
        """The next tokens of each sequence, drawn as `draw` does: up to its limit, or its end.

        Args:
            spans: Of one token each, with blocks for all tokens up to the limit but the last.
        """
        given = _Rows(spans, range(len(spans)))
        step, _ = self._step(given)
        made = _Made(draws, max(draw.limit for draw in draws), self._num_tokens)
        self._library.inkling_write(ctypes.byref(self._model), ctypes.byref(step), ctypes.byref(made.struct))
        return [row[:count] for row, count in zip(made.written.tolist(), made.counts.tolist(), strict=True)]

    def _step(self, given: _Rows) -> tuple[_Step, Tensor]:
        """What the compiled code is given, and where it puts logits (wanted, V)."""
        rows, threads = len(given.tokens), torch.get_num_threads()
        logits = torch.empty(len(given.wanted), self._vocab_size)
        need = self._library.inkling_scratch_floats(ctypes.byref(self._model), rows, self._max_positions, threads)
        if need > len(self._scratch):
            self._scratch = torch.empty(need)
        keys = self._memory.keys
        step = _Step(
            tokens=given.tokens.ctypes.data,
            positions=given.positions.ctypes.data,
            owners=given.owners.ctypes.data,
            blocks=given.blocks.ctypes.data,
            wanted=given.wanted.ctypes.data,
            keys=keys.data_ptr(),
            values=self._memory.values.data_ptr(),
            scratch=self._scratch.data_ptr(),
            logits=logits.data_ptr(),
            layer_stride=keys.stride(0),
            rows=rows,
            num_wanted=len(given.wanted),
            max_blocks=given.blocks.shape[1],
            memory_kind=_KINDS[keys.dtype],
            max_positions=self._max_positions,
            threads=threads,
        )
        return step, logits

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
            if rows % _LANES:
                raise UnavailableError("it needs widths that are multiples of 16")
            scales = self._pointer(_scales_in_lanes(matrix.scales_and_zeros))
            codes = self._pointer(_codes_in_lanes(matrix.codes))
            return _Matrix(codes, scales, pointer, _INT4, rows, columns, matrix.group_size)
        weight: Any = module.weight
        if weight.dtype not in _KINDS:
            raise UnavailableError(f"weights in {weight.dtype}")
        rows, columns = weight.shape
        return _Matrix(self._pointer(weight), None, pointer, _KINDS[weight.dtype], rows, columns, 0)


class _Rows:
    """New tokens in a row, (R) each, and the blocks of their sequences, (S, most), as the compiled code reads them."""

    def __init__(self, spans: Sequence[Span], wanted: Sequence[int]) -> None:
        counts = [len(span.token_ids) for span in spans]
        self.tokens = np.fromiter((token for span in spans for token in span.token_ids), np.int32)
        self.owners = np.repeat(np.arange(len(spans), dtype=np.int32), counts)
        starts = np.array([span.start for span in spans], np.int32)
        firsts = np.cumsum([0, *counts[:-1]], dtype=np.int32)
        self.positions = np.arange(len(self.tokens), dtype=np.int32) + (starts - firsts)[self.owners]
        self.wanted = np.array(wanted, np.int32)
        self.blocks = np.zeros((len(spans), max(len(span.blocks) for span in spans)), np.int32)
        for row, span in enumerate(spans):
            self.blocks[row, : len(span.blocks)] = span.blocks


class _Made:
    """Draws as the compiled code reads them, and where it writes `most` tokens of each."""

    def __init__(self, draws: Sequence[PlainDraw], most: int, num_tokens: int) -> None:
        rows, max_ends = len(draws), max(len(draw.end_ids) for draw in draws)
        ends = np.full((rows, max_ends), -1, np.int32)
        for row, draw in enumerate(draws):
            ends[row, : len(draw.end_ids)] = draw.end_ids
        self.written, self.counts = np.zeros((rows, most), np.int32), np.zeros(rows, np.int32)
        self._kept: dict[str, np.ndarray] = {
            "seeds": np.array([draw.seed % 2**64 for draw in draws], np.uint64),
            "places": np.array([draw.place for draw in draws], np.int32),
            "temperatures": np.array([draw.temperature for draw in draws], np.float32),
            "limits": np.array([draw.limit for draw in draws], np.int32),
            "ends": ends,
            "written": self.written,
            "counts": self.counts,
        }
        pointers = {name: array.ctypes.data for name, array in self._kept.items()}
        self.struct = _Draws(**pointers, max_ends=max_ends, most=most, vocabulary=num_tokens)


def _codes_in_lanes(codes: Tensor) -> Tensor:
    """Bytes of two codes, (N, K / 2), sixteen rows beside each other, (N / 16, K / 8, 16, 2, 2): see `products.h`."""
    N, half = codes.shape
    both = torch.stack((codes & 15, codes >> 4), dim=-1)  # even and odd columns
    both = both.view(N // _LANES, _LANES, half // 4, 2, 2, 2)  # rows, K/8, two words' bytes: pairs of pairs
    return (both[..., 0, :] | both[..., 1, :] << 4).permute(0, 2, 1, 4, 3)


def _scales_in_lanes(scales_and_zeros: Tensor) -> Tensor:
    """Of each group, (K / group, N, 2), as sixteen rows beside each other, (N / 16, K / group, 2, 16) bf16."""
    groups, N, _ = scales_and_zeros.shape
    return scales_and_zeros.bfloat16().view(groups, N // _LANES, _LANES, 2).permute(1, 0, 3, 2)
