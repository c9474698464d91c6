"""A folder that is built beside its place and moved there when it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inkling import files
from inkling.data.clean import RULES_VERSION
from inkling.data.documents import FULL_DISK, Source, list_sources
from inkling.data.prep_options import PrepOptions
from inkling.errors import DataError
from inkling.tokenizer import Tokenizer


def fingerprint_of(sources: list[Source], options: PrepOptions) -> str:
    """Changes with every file (name, size, time of change), every option, the tokenizer, and this version's rules."""
    kept_out = list_sources(options.keep_out) if options.keep_out else []
    versions = [[(file.name, file.num_bytes, file.version) for file in read] for read in (sources, kept_out)]
    tokenizer = Tokenizer.load(options.tokenizer).sha256 if options.tokenizer is not None else None
    content = [versions, options.model_dump(), RULES_VERSION, tokenizer]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def work_folder(out: Path, fingerprint: str) -> Path:
    """The folder beside `out` in which it is built; what is there is kept when it was for the same result.

    Several processes may make it at the same time: the first one wins, and the others use it too.
    """
    folder = out.with_name(f".unfinished-{out.name}")
    mark = folder / "work" / "fingerprint"
    if folder.exists() and not (mark.exists() and mark.read_text() == fingerprint):
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        new = out.with_name(f"{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
        files.write_text(new / "work" / "fingerprint", fingerprint)
        try:
            new.rename(folder)
        except OSError:
            shutil.rmtree(new)
            if not mark.exists():
                raise
    return folder


def move_into_place(folder: Path, out: Path) -> None:
    """What was at `out` goes when the new folder is there."""
    if out.exists():
        old = out.with_name(f".old-{out.name}")
        shutil.rmtree(old, ignore_errors=True)
        out.replace(old)
        folder.replace(out)
        shutil.rmtree(old)
    else:
        folder.replace(out)
    files.sync_folder(out.parent)


@contextmanager
def explain_full_disk(out: Path) -> Iterator[None]:
    """A full disk as a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DataError(
                f"the disk is full: {out} is unfinished. Free some space and run the same command again"
            ) from error
        raise
