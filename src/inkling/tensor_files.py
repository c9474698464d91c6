"""Safetensors files that carry the SHA-256 of their tensors in their own metadata, written whole or not at all.

One rename replaces tensors and checksum together.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inkling import files
from inkling.errors import CheckpointError, reason_of

_UNKNOWN_DIGEST = "0" * 64
_DIGEST_BLOCK = 1 << 22
_DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    """Write `tensors` to `path`, whole or not at all, and return the SHA-256 of their bytes."""

    def write(temporary: Path) -> None:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"format": "pt", **(metadata or {}), "sha256": _UNKNOWN_DIGEST})

    return _write_with_digest(path, write)


def stream_tensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterable[Tensor]
) -> str:
    """As `write_tensors`, of one type, with one tensor in memory at a time.

    Args:
        shapes: Of all tensors, by name.
        tensors: In that order, of any floating-point type.
    """

    def write(temporary: Path) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt", "sha256": _UNKNOWN_DIGEST}}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors:
                # Not numpy's `tofile`, whose error does not say that the disk is full.
                file.write(tensor.to(dtype).contiguous().view(torch.uint8).numpy().data)

    return _write_with_digest(path, write)


def _write_with_digest(path: Path, write: Callable[[Path], None]) -> str:
    digest = ""

    def write_both(temporary: Path) -> None:
        nonlocal digest
        write(temporary)
        header, data_start = read_header(temporary)
        digest = _digest(temporary, data_start)
        with temporary.open("rb+") as file:
            file.seek(8 + header.index(_UNKNOWN_DIGEST.encode()))
            file.write(digest.encode())

    with explained_if_it_fails(path):
        files.write_file(path, write_both)
    return digest


def read_tensors(path: Path, *, verify: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; with `verify`, their checksum is compared first.

    Raises CheckpointError when the file is missing, truncated or altered.
    """
    try:
        if verify:
            _verify(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({reason_of(error)})") from None


def checksum(path: Path) -> str:
    """The checksum that a safetensors file of ours carries; empty for others, and where there is no such file."""
    try:
        header, _ = read_header(path)
        return str(json.loads(header).get("__metadata__", {}).get("sha256", ""))
    except (OSError, ValueError):
        return ""


def is_whole(path: Path) -> bool:
    """Whether a file's tensors have the checksum that it carries."""
    expected = checksum(path)
    return bool(expected) and _digest(path, read_header(path)[1]) == expected


def _verify(path: Path) -> None:
    header, data_start = read_header(path)
    expected = json.loads(header).get("__metadata__", {}).get("sha256")
    if expected is not None and _digest(path, data_start) != expected:
        raise ValueError("its checksum does not match")


def read_header(path: Path) -> tuple[bytes, int]:
    """The JSON header of a safetensors file, and where its data begins. Raises ValueError for one that is cut short."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > path.stat().st_size:
            raise ValueError("it is cut short")
        return file.read(length), 8 + length


def _digest(path: Path, start: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_DIGEST_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def explained_if_it_fails(path: Path) -> Iterator[None]:
    """Turns a write that fails into a CheckpointError that says why, and that nothing is lost."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # safetensors gives the number in words only
        full = getattr(error, "errno", None) in codes or any(f"os error {code}" in str(error) for code in codes)
        reason = (
            "the disk is full; free some space, then run it again (training: with --resume)" if full else str(error)
        )
        raise CheckpointError(f"could not write {path}: {reason}. What was saved before is whole") from error
