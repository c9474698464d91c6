"""Files that appear whole or not at all: written beside, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inkling.errors import InklingError

_UNFINISHED = ".unfinished-"
"""Prefix of everything that is not in place yet; leftovers of a killed process carry it."""


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable. A no-op where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the file's content durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Create or replace `path` with what `write(temporary_path)` writes; on any failure `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_UNFINISHED}{path.name}")
    try:
        write(temporary)
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Create or replace `path` with UTF-8 text, with `\\n` line ends on every platform."""
    write_file(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Create or replace `path` with indented JSON. Non-finite numbers raise ValueError: they are not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends, and vanishes when it raises.

    `folder` must not exist, or must be an empty folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{_UNFINISHED}{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                sync_file(path)
        sync_folder(temporary)
        _move_into_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def _move_into_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise InklingError(f"{folder} appeared in the meantime and is left as it is; choose another place") from None


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left half-written in `folder`."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
