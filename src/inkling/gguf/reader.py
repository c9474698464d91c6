"""Reading a GGUF file that may come from anybody: every count, length and offset is compared with the file first.

Nothing is read past the end, nothing is allocated that the file is too small to fill. Llama.cpp itself had four
vulnerabilities here (CVE-2024-21802, CVE-2025-53630, CVE-2026-27940, CVE-2026-33298).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inkling.errors import MissingExtraError, ModelError, reason_of

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_NAME = 1 << 16
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file.

    Attributes:
        shape: Rows first, as in numpy.
        type_name: GGUF's name of its number format.
        offset: Of its first byte, from the start of the file.
    """

    shape: tuple[int, ...]
    type_name: str
    offset: int
    num_bytes: int


class GGUFFile:
    """A GGUF file, opened: its keys, and its tensors one by one.

    Raises ModelError when the file is damaged, cut short, or says of itself what cannot be true.

    Attributes:
        values: Key → number, string, or list of them.
        tensors: By GGUF's names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read ({reason_of(error)})") from None
        self._at = 0
        try:
            self.values, self.tensors = self._read()
        except (struct.error, UnicodeDecodeError, ValueError, KeyError, OverflowError) as error:
            raise ModelError(f"{path} is no GGUF file, or a damaged one ({error})") from None

    def array(self, name: str) -> np.ndarray:
        """A tensor in fp32. Raises ModelError for a number format that cannot be unpacked."""
        from inkling.gguf import types

        tensor = self.tensors[name]
        raw = np.array(self._bytes[tensor.offset : tensor.offset + tensor.num_bytes])
        try:
            return types.decode(raw, tensor.type_name).reshape(tensor.shape).astype(np.float32, copy=False)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{self.path}: the tensor {name} of type {tensor.type_name} cannot be unpacked ({error})"
            ) from None

    # ------------------------------------------------------------ header

    def _read(self) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
        if bytes(self._take(4)) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number(4)
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}; {_VERSIONS[0]} and {_VERSIONS[1]} can be read")
        num_tensors, num_values = self._count(8 + 4 + 4 + 8), self._count(8 + 4 + 1)
        values: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._string(_MAX_NAME)
            if key in values:
                raise ValueError(f"the key {key!r} occurs twice")
            values[key] = self._value(self._number(4))
        alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"its alignment {alignment!r} is no power of two")
        infos = list(self._tensor_infos(num_tensors))
        start = -(-self._at // alignment) * alignment
        tensors = {}
        for name, shape, type_number, offset in infos:
            if name in tensors:
                raise ValueError(f"the tensor {name!r} occurs twice")
            tensors[name] = self._located(name, shape, type_number, start, offset, alignment)
        return values, tensors

    def _tensor_infos(self, count: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        for _ in range(count):
            name = self._string(_MAX_NAME)
            num_dimensions = self._number(4)
            if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
                raise ValueError(f"the tensor {name!r} has {num_dimensions} dimensions")
            dimensions = [self._number(10) for _ in range(num_dimensions)]
            yield name, tuple(reversed(dimensions)), self._number(4), self._number(10)

    def _located(
        self, name: str, shape: tuple[int, ...], type_number: int, start: int, offset: int, alignment: int
    ) -> StoredTensor:
        try:
            import gguf
        except ImportError:
            raise MissingExtraError("gguf", "gguf", "a GGUF file") from None
        kind = gguf.GGMLQuantizationType(type_number)
        length, size = gguf.GGML_QUANT_SIZES[kind]
        elements = 1
        for dimension in shape:
            elements *= dimension
        if elements <= 0 or shape[-1] % length:
            raise ValueError(f"the tensor {name!r} of shape {shape} cannot be of type {kind.name}")
        num_bytes = elements // length * size
        if offset % alignment or start + offset + num_bytes > len(self._bytes):
            raise ValueError(f"the tensor {name!r} lies outside of the file")
        return StoredTensor(shape, kind.name, start + offset, num_bytes)

    # ------------------------------------------------------------ values

    def _take(self, size: int) -> np.ndarray:
        if size > len(self._bytes) - self._at:
            raise ValueError("it is cut short")
        self._at += size
        taken: np.ndarray = self._bytes[self._at - size : self._at]
        return taken

    def _number(self, kind: int) -> Any:
        form = _NUMBERS[kind]
        return struct.unpack(form, self._take(struct.calcsize(form)).tobytes())[0]

    def _count(self, least_bytes_each: int) -> int:
        """A number of things that follow, each of so many bytes or more."""
        count = int(self._number(10))
        if count * least_bytes_each > len(self._bytes) - self._at:
            raise ValueError(f"it says that {count:,} things follow, which it is too small for")
        return count

    def _string(self, limit: int | None = None) -> str:
        length = self._count(1)
        if limit is not None and length > limit:
            raise ValueError(f"a name of {length:,} bytes")
        return self._take(length).tobytes().decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(kind)
        element = self._number(4)
        if element == _STRING:
            return [self._string() for _ in range(self._count(8))]
        form = _NUMBERS[element]  # no arrays of arrays
        count = self._count(struct.calcsize(form))
        return np.frombuffer(
            self._take(count * struct.calcsize(form)).tobytes(), np.dtype(form.replace("?", "B"))
        ).tolist()


def strings_of(values: Mapping[str, Any], key: str) -> list[str]:
    """A list of strings among a file's values. Raises ModelError when it is missing or something else."""
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ModelError(f"the file has no list of strings {key}")
    return found
