"""Values that carry nothing but themselves, between processes that do not trust each other.

A value is taken apart by the methods of the builtin types, whatever its class says of itself, and put together again
from builtin types alone: what arrives cannot compare itself equal to everything. Standard library only.
"""

from __future__ import annotations

import base64
import json
from typing import Any

MAX_BYTES = 1 << 20
_MAX_DEPTH = 60
_TYPES = {kind.__name__: kind for kind in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)}


class NotPlainError(ValueError):
    """A value that cannot travel."""


def encode(value: Any) -> bytes:
    """A plain value as bytes. Raises NotPlainError for other values, and for too large ones."""
    content = json.dumps(_taken_apart(value, 0)).encode()
    if len(content) > MAX_BYTES:
        raise NotPlainError("the value is too large")
    return content


def decode(content: bytes) -> Any:
    """The value again. Raises NotPlainError for what `encode` would not make."""
    if len(content) > MAX_BYTES:
        raise NotPlainError("the value is too large")
    try:
        return _put_together(json.loads(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise NotPlainError(f"no plain value: {type(error).__name__}") from None


def _taken_apart(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise NotPlainError("the value is nested too deeply")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return {"i": hex(int.__int__(value))}
    if issubclass(kind, float):
        return {"f": float.hex(value)}
    if issubclass(kind, complex):
        parts: list[float] = [part.__get__(value) for part in (complex.real, complex.imag)]
        return {"c": [float.hex(part) for part in parts]}
    if issubclass(kind, (bytes, bytearray)):
        return {"b": base64.b64encode(memoryview(value)).decode()}
    for name, container in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if issubclass(kind, container):
            return {name: [_taken_apart(item, depth + 1) for item in container.__iter__(value)]}
    if issubclass(kind, dict):
        pairs = dict.items(value)
        return {"d": [[_taken_apart(key, depth + 1), _taken_apart(item, depth + 1)] for key, item in pairs]}
    if any(value is one for one in _TYPES.values()):
        return {"k": type.__dict__["__name__"].__get__(value)}
    raise NotPlainError(f"a {kind.__name__[:60]} is no plain value")


def _put_together(content: Any) -> Any:
    if content is None or type(content) in (bool, str):
        return content
    ((name, inner),) = content.items()
    if name == "i":
        return int(inner, 16)
    if name == "f":
        return float.fromhex(inner)
    if name == "c":
        return complex(float.fromhex(inner[0]), float.fromhex(inner[1]))
    if name == "b":
        return base64.b64decode(inner, validate=True)
    if name == "k":
        return _TYPES[inner]
    if name == "d":
        return {_put_together(key): _put_together(item) for key, item in inner}
    makers = {"l": list, "t": tuple, "s": set, "z": frozenset}
    return makers[name](_put_together(item) for item in inner)
