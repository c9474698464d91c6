"""Text that is on every machine that runs Inkling: the sources of Python's standard library and of PyTorch.

It is read where it lies and never copied into the package, so nothing is redistributed. Licences: the standard library
PSF-2.0 (some modules carry notices of their own), PyTorch BSD-3-Clause.
"""

from __future__ import annotations

import importlib.util
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from inkling.data.formats import code
from inkling.errors import DataError, did_you_mean

SUFFIXES: tuple[str, ...] = ()  # not a kind of file; its files are source code
read = code.read

_LIBRARY_EXCLUDED = {
    *("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"),
    *("lib2to3", "pydoc_data", "_pyrepl", "idlelib", "turtledemo", "config"),
}
_TORCH_EXCLUDED = {"test", "tests", "testing", "__pycache__", "include", "lib", "bin", "share", "_vendor"}
_TORCH_SMALL = ("nn", "optim", "utils", "distributions", "autograd", "amp", "fx", "ao", "cuda", "export", "linalg")


def list_files(name: str) -> list[tuple[Path, str]]:
    """Files of a collection with their names in it, sorted. Raises DataError for an unknown one.

    builtin:python        the standard library and the parts of PyTorch that read like a library: about 20 MB
    builtin:python-small  the standard library: about 10 MB
    builtin:python-full   the standard library and all of PyTorch: about 50 MB
    """
    library, torch = _standard_library(), _torch_folder()
    collections: dict[str, Callable[[], list[tuple[Path, str]]]] = {
        "builtin:python": lambda: [*_files(library, _LIBRARY_EXCLUDED), *_torch_files(torch, _TORCH_SMALL)],
        "builtin:python-small": lambda: [*_files(library, _LIBRARY_EXCLUDED)],
        "builtin:python-full": lambda: [*_files(library, _LIBRARY_EXCLUDED), *_files(torch, _TORCH_EXCLUDED)],
    }
    if name not in collections:
        raise DataError(f"there is no built-in text {name!r}{did_you_mean(name, collections)}")
    return collections[name]()


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
        if not excluded.intersection(relative.parts) and not relative.name.startswith("test_"):
            yield path, f"{folder.name}/{relative.as_posix()}"
