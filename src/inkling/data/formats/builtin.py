"""Text that is on every machine that runs Inkling: the sources of Python's standard library and of PyTorch.

It is read where it lies and never copied into the package, so nothing is redistributed. Licences: the standard library
PSF-2.0 (some modules carry notices of their own), PyTorch BSD-3-Clause.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats import code
from inkling.data.formats._decode import decode
from inkling.errors import DataError, did_you_mean

PROSE = "builtin:python-prose"

SUFFIXES: tuple[str, ...] = ()  # not a kind of file: code but for the docstrings

_TOPICS = "pydoc_data"
_LIBRARY_EXCLUDED = {
    *("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"),
    *("lib2to3", "pydoc_data", "_pyrepl", "idlelib", "turtledemo", "config"),
}
_TORCH_EXCLUDED = {"test", "tests", "testing", "_testing", "__pycache__", "include", "lib", "bin", "share", "_vendor"}
_TORCH_SMALL = ("nn", "optim", "utils", "distributions", "autograd", "amp", "fx", "ao", "cuda", "export", "linalg")


def list_files(name: str) -> list[tuple[Path, str]]:
    """Files of a collection with their names in it, sorted. Raises DataError for an unknown one.

    builtin:python        the standard library and the parts of PyTorch that read like a library: about 20 MB
    builtin:python-small  the standard library: about 10 MB
    builtin:python-full   the standard library and all of PyTorch: about 50 MB
    builtin:python-prose  what people wrote in these: docstrings and the topics of help(): about 7 MB
    """
    library, torch = _standard_library(), _torch_folder()
    collections: dict[str, Callable[[], list[tuple[Path, str]]]] = {
        "builtin:python": lambda: [*_files(library, _LIBRARY_EXCLUDED), *_torch_files(torch, _TORCH_SMALL)],
        "builtin:python-small": lambda: [*_files(library, _LIBRARY_EXCLUDED)],
        "builtin:python-full": lambda: [*_files(library, _LIBRARY_EXCLUDED), *_files(torch, _TORCH_EXCLUDED)],
        PROSE: lambda: [
            *_files(library, _LIBRARY_EXCLUDED),
            *_files(library / _TOPICS, set()),
            *_files(torch, _TORCH_EXCLUDED),
        ],
    }
    if name not in collections:
        raise DataError(f"there is no built-in text {name!r}{did_you_mean(name, collections)}")
    return collections[name]()


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The docstrings of a Python file in the order of the file, or the texts of help() topics, as one document."""
    data = file.read(code.MAX_FILE_BYTES)
    text = decode(data, name)
    if isinstance(text, Skipped):
        yield text
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\\d" in other people's code
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", 0)
        yield Skipped("bad_syntax", len(data), f"{name}: {getattr(error, 'msg', error)} in line {line}")
        return
    texts = _topics(tree) if PurePath(name).parent.name == _TOPICS else _docstrings(tree)
    yield Document("\n\n".join(texts), f"{name}#docstrings")


def _docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings in the order of the file, each without its indentation."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):  # a module has no line
        text = ast.get_docstring(node)
        if text:
            yield text


def _topics(tree: ast.Module) -> Iterator[str]:
    """The values of the dictionary that holds what `help("topic")` prints."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for value in node.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value.strip()


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _torch_folder() -> Path:
    found = importlib.util.find_spec("torch")  # finds without importing
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _torch_files(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    for path, name in _files(folder, _TORCH_EXCLUDED):
        relative = path.relative_to(folder).parts
        if len(relative) == 1 or relative[0] in parts:
            yield path, name


def _files(folder: Path, excluded: set[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        if not excluded.intersection(relative.parts) and not _is_test(relative.name):
            yield path, f"{folder.name}/{relative.as_posix()}"
