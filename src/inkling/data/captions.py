"""Pictures and what is said of them, as rows: folders of NAME.png beside NAME.txt, and WebDataset archives.

A WebDataset (github.com/webdataset/webdataset) is a tar file whose neighbouring members of one name are a sample:
`000017.jpg` with `000017.txt` (a caption), or with `000017.json` (a row without its picture). A picture in an archive
is named `ARCHIVE.tar/MEMBER`, and read when it is needed.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from inkling.data.documents import Document, Skipped, Source, list_sources, read_part, units_of
from inkling.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_MAX_CAPTION_BYTES = 1 << 20


def row_documents(path: Path) -> Iterator[Document | Skipped]:
    """All rows of a file or a folder, in order; what has captions is recognised by its pictures.

    Raises DataError as `list_sources`.
    """
    sources = list_sources([path])
    folder = path if path.is_dir() else path.parent
    pictures = {Path(one.location).with_suffix(""): one for one in sources if _is_picture(one.name)}
    is_captioned = pictures and not any(one.name.endswith((".jsonl", ".json", ".csv", ".parquet")) for one in sources)
    for source in sources:
        stem = Path(source.location).with_suffix("")
        if source.name.endswith(".tar") and not source.is_remote and _holds_pictures(Path(source.location)):
            yield from _of_archive(source, folder)
        elif is_captioned and source.name.endswith(".txt"):
            yield _captioned(source, pictures.pop(stem, None), folder)
        elif not _is_picture(source.name):
            for unit in units_of([source]):
                for part in unit:
                    yield from read_part(part)
    if is_captioned:
        for source in pictures.values():
            yield Skipped(
                "no_caption", source.num_bytes, f"{source.name}: a picture without a caption beside it (.txt)"
            )


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def _captioned(caption: Source, picture: Source | None, folder: Path) -> Document | Skipped:
    if picture is None:
        return Skipped("no_picture", caption.num_bytes, f"{caption.name}: a caption without a picture beside it")
    with caption.open() as file:
        text = file.read(_MAX_CAPTION_BYTES).decode("utf-8", errors="replace").strip()
    image = str(Path(picture.location).relative_to(folder))
    return Document(text, caption.name, {"row": {"image": image, "caption": text}})


# ---------------------------------------------------------------- archives


def _of_archive(source: Source, folder: Path) -> Iterator[Document | Skipped]:
    """The samples of a WebDataset."""
    path = Path(source.location)
    try:
        with tarfile.open(path, "r:") as archive:
            members = (member for member in archive if member.isreg())
            for key, some in itertools.groupby(members, lambda member: _split(member.name)[0]):
                yield _sample(archive, list(some), f"{source.name}/{key}", f"{path.relative_to(folder)}")
    except (tarfile.TarError, EOFError, OSError) as error:
        yield Skipped("unreadable", source.num_bytes, f"{source.name}: {error}")


def _sample(archive: tarfile.TarFile, members: list[tarfile.TarInfo], place: str, name: str) -> Document | Skipped:
    picture = next((member for member in members if _is_picture(member.name)), None)
    said = next((member for member in members if _split(member.name)[1] in ("json", "txt", "caption")), None)
    if picture is None or said is None:
        what = "a picture without a caption (.txt or .json)" if said is None else "a caption without a picture"
        return Skipped("half_a_sample", sum(member.size for member in members), f"{place}: {what}")
    file = archive.extractfile(said)
    assert file is not None  # regular files have content
    text = file.read(_MAX_CAPTION_BYTES).decode("utf-8", errors="replace").strip()
    row: Any = {"caption": text}
    if said.name.endswith(".json"):
        try:
            row = json.loads(text)
        except ValueError as error:
            return Skipped("not_json", said.size, f"{place}.json: {error}")
        if not isinstance(row, dict):
            return Skipped("not_json", said.size, f"{place}.json: no row, but {type(row).__name__}")
    return Document(text, place, {"row": {**row, "image": f"{name}/{picture.name}"}})


def _split(name: str) -> tuple[str, str]:
    """`a/000017.seg.png` → `a/000017` and `seg.png`, as WebDataset cuts names."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, suffix.lower()


@lru_cache(maxsize=64)
def _index(path: Path, version: int) -> dict[str, tuple[int, int]]:
    """Name of each picture in an archive → where it begins, and its bytes; read once per change of the file."""
    with tarfile.open(path, "r:") as archive:
        return {
            member.name: (member.offset_data, member.size)
            for member in archive
            if member.isreg() and _is_picture(member.name)
        }


def _holds_pictures(path: Path) -> bool:
    try:
        return bool(_index(path, path.stat().st_mtime_ns))
    except (tarfile.TarError, EOFError, OSError):
        return False


def read_member(path: Path, max_bytes: int) -> bytes:
    """A picture named `ARCHIVE.tar/MEMBER`. Raises DataError where there is none, or a larger one."""
    archive = next((parent for parent in path.parents if parent.suffix == ".tar" and parent.is_file()), None)
    if archive is None:
        raise DataError(f"there is no picture {path}")
    try:
        place = _index(archive, archive.stat().st_mtime_ns).get(str(PurePosixPath(*path.relative_to(archive).parts)))
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} is no tar file that can be read ({error})") from None
    if place is None:
        raise DataError(f"there is no picture {path}")
    start, size = place
    if size > max_bytes:
        raise DataError(f"{path} has more than {max_bytes >> 20} MB")
    with archive.open("rb") as file:
        file.seek(start)
        return file.read(size)
