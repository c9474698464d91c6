"""Files in object stores and on the Hugging Face hub, through `fsspec`. Nothing here runs unless a URL is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import ModuleType
from typing import BinaryIO, cast

from inkling.errors import DataError, MissingExtraError

HUB = "hf:"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL. `version` changes with its content."""

    url: str
    num_bytes: int
    version: int


def is_remote(path: str) -> bool:
    """Whether a path names something that is not in a folder of this machine."""
    return "://" in path or path.startswith(HUB)


def list_files(url: str) -> Iterator[RemoteFile]:
    """The files behind a URL, sorted, hidden ones left out.

    `hf:OWNER/NAME` names a data set of the Hugging Face hub: the training part of its Parquet files.

    Raises:
        MissingExtraError: fsspec, or its package for this kind of store, is not installed.
        DataError: The store cannot be reached, or there is nothing.
    """
    fsspec = _fsspec(url)
    full = f"hf://datasets/{url.removeprefix(HUB)}@~parquet" if url.startswith(HUB) else url
    try:
        system, path = fsspec.core.url_to_fs(full)
        found = system.find(path, detail=True)
        entries = sorted(found.items())
        versions = {name: int(hashlib.sha256(system.ukey(name).encode()).hexdigest()[:15], 16) for name in found}
    except ImportError as error:  # fsspec says which package the store needs
        raise DataError(f"cannot read {url}: another package is needed ({_in_one_line(error)})") from None
    except Exception as error:  # each store raises errors of its own transport
        raise DataError(f"cannot list {url} ({_in_one_line(error)}). Check the address and the network") from None
    if url.startswith(HUB) and any("/train/" in name for name in found):
        entries = [(name, info) for name, info in entries if "/train/" in name]
    entries = [(name, info) for name, info in entries if not PurePosixPath(name).name.startswith(".")]
    if not entries:
        raise DataError(f"there is nothing at {url}. Check the address")
    for name, info in entries:
        yield RemoteFile(system.unstrip_protocol(name), int(info.get("size") or 0), versions[name])


def open_file(url: str) -> BinaryIO:
    """A remote file for reading, block by block. Raises DataError when it cannot be opened."""
    try:
        return cast(BinaryIO, _fsspec(url).open(url, "rb", block_size=_BLOCK_BYTES).open())
    except MissingExtraError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {url} ({_in_one_line(error)}). Run the same command again to go on") from None


def _fsspec(url: str) -> ModuleType:
    try:
        import fsspec  # an extra
        import fsspec.core
    except ImportError:
        raise MissingExtraError("fsspec", "remote", f"reading {url}") from None
    return cast(ModuleType, fsspec)


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}".rstrip(": ")
