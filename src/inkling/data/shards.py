"""The data folder on disk: token shards, their document ends, and the manifest that makes them one whole.

`NNNNN.bin` holds headerless little-endian token ids, `NNNNN.idx` the end of each document in tokens (uint64) from the
start of its shard; validation shards begin with `val-`. `manifest.json` is written last: without it a folder is
unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkling import files
from inkling.errors import DataError, TokenizerError
from inkling.tokenizer import Tokenizer

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
SplitName = Literal["train", "validation"]
_PREFIX: dict[SplitName, str] = {"train": "", "validation": "val-"}


@dataclass(frozen=True)
class ShardInfo:
    """One shard, as the manifest names it. `num_bytes` counts UTF-8 bytes of text, without document ends."""

    name: str
    num_documents: int
    num_tokens: int
    num_bytes: int
    sha256: str


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 up to 65,536 tokens, uint32 above; little-endian."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_name(split: SplitName, number: int) -> str:
    """File name of a shard, without suffix."""
    return f"{_PREFIX[split]}{number:05d}"


def write_shard(folder: Path, name: str, tokens: np.ndarray, document_ends: np.ndarray, num_bytes: int) -> ShardInfo:
    """Write one shard, whole or not at all.

    Args:
        tokens: Ids of all documents, of the type they are stored in; each document ends with its end-of-text token.
        document_ends: End of each document in tokens.
        num_bytes: UTF-8 bytes of their text.
    """
    content = tokens.tobytes()
    ends = document_ends.astype("<u8").tobytes()
    files.write_file(folder / f"{name}.bin", lambda path: path.write_bytes(content))
    files.write_file(folder / f"{name}.idx", lambda path: path.write_bytes(ends))
    return ShardInfo(name, len(document_ends), len(tokens), num_bytes, hashlib.sha256(content).hexdigest())


class TokenSplit:
    """The tokens of one split, memory-mapped, as one sequence over its shards."""

    def __init__(self, folder: Path, shards: list[ShardInfo], dtype: np.dtype[Any]) -> None:
        self._open([(folder, shard) for shard in shards], dtype)

    @classmethod
    def joined(cls, splits: Sequence[TokenSplit]) -> TokenSplit:
        """Several splits of the same type as one."""
        split = cls.__new__(cls)
        split._open([place for other in splits for place in other._places], splits[0].dtype)
        return split

    def _open(self, places: list[tuple[Path, ShardInfo]], dtype: np.dtype[Any]) -> None:
        self._places = places
        shards = [shard for _, shard in places]
        self.shards = shards
        self.dtype = dtype
        self._shards = [_map(folder / f"{shard.name}.bin", shard.num_tokens, dtype) for folder, shard in places]
        self._starts = np.cumsum([0, *(shard.num_tokens for shard in shards)], dtype=np.int64)
        ends = [_map(folder / f"{shard.name}.idx", shard.num_documents, np.dtype("<u8")) for folder, shard in places]
        shifted = [end.astype(np.int64) + start for end, start in zip(ends, self._starts[:-1], strict=True)]
        self.document_ends: np.ndarray = np.concatenate(shifted) if shifted else np.empty(0, np.int64)
        """End of each document in tokens, (number of documents)."""
        self.num_tokens = int(self._starts[-1])
        self.num_documents = len(self.document_ends)
        self.num_bytes = sum(shard.num_bytes for shard in shards)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Token ids from `start` to `stop`, (stop - start), across shards."""
        pieces = [self._shards[shard][first:last] for shard, first, last in self._across(start, stop)]
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The same, read and not mapped: after a pass over everything, all mapped pages would count as memory."""
        pieces = []
        for shard, first, last in self._across(start, stop):
            folder, info = self._places[shard]
            offset = first * self.dtype.itemsize
            pieces.append(np.fromfile(folder / f"{info.name}.bin", self.dtype, last - first, offset=offset))
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def _across(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Shards that hold the tokens from `start` to `stop`, each with the first and the end of them in it."""
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            shard_start = int(self._starts[shard])
            end = min(stop, int(self._starts[shard + 1]))
            yield shard, start - shard_start, end - shard_start
            start, shard = end, shard + 1


def without_documents(split: TokenSplit, dropped: np.ndarray, num_bytes: np.ndarray, folder: Path) -> list[ShardInfo]:
    """Write the shards of a split into another folder, without some documents; a shard that is left empty, not.

    Args:
        dropped: (documents) bool.
        num_bytes: (dropped documents) UTF-8 bytes of the text of each.
    """
    made, first = [], 0
    sizes = np.zeros(split.num_documents, np.int64)
    sizes[dropped] = num_bytes
    for shard in split.shards:
        numbers = np.arange(first, first + shard.num_documents)
        starts = np.concatenate([[0], split.document_ends])[numbers]
        documents = [
            split.tokens(start, end)
            for start, end, is_dropped in zip(starts, split.document_ends[numbers], dropped[numbers], strict=True)
            if not is_dropped
        ]
        if documents:
            left = shard.num_bytes - int(sizes[numbers].sum())
            ends = np.cumsum([len(document) for document in documents])
            made.append(write_shard(folder, shard.name, np.concatenate(documents).astype(split.dtype), ends, left))
        first += shard.num_documents
    return made


@dataclass(frozen=True)
class DatasetPart:
    """One source of a data folder: the folder itself, or one that it mixes in with a share of the training windows."""

    name: str
    share: float
    train: TokenSplit
    validation: TokenSplit


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The name of each folder, with as many of the folders above as tell all of them apart; no folder twice."""
    longest = max(len(folder.parts) for folder in folders)
    for depth in range(1, longest + 1):
        names = [Path(*folder.parts[-depth:]).as_posix() for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


class Dataset:
    """A finished data folder, or a mixture of several."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.parts = self._parts()
        """Its sources, of which a folder that is no mixture has one."""
        self.tokenizer_sha256: str = manifest["tokenizer_sha256"]
        self.vocab_size: int = manifest["vocab_size"]
        self.eot_id: int = manifest["eot_id"]
        self.train = TokenSplit.joined([part.train for part in self.parts])
        self.validation = TokenSplit.joined([part.validation for part in self.parts])

    def _parts(self) -> list[DatasetPart]:
        if "mixture" not in self.manifest:
            dtype = np.dtype(self.manifest["dtype"])
            train = TokenSplit(self.folder, _shards_of(self.manifest, "train"), dtype)
            validation = TokenSplit(self.folder, _shards_of(self.manifest, "validation"), dtype)
            return [DatasetPart(self.folder.name, 1.0, train, validation)]
        entries = self.manifest["mixture"]
        sources = [Dataset.open((self.folder / entry["folder"]).resolve()) for entry in entries]
        for source, entry in zip(sources, entries, strict=True):
            if manifest_sha256(source.folder) != entry["manifest_sha256"]:
                raise DataError(f"{source.folder} has changed since {self.folder} was mixed: run inkling mix again")
        names = distinct_names([source.folder for source in sources])
        return [
            DatasetPart(name, entry["share"], source.train, source.validation)
            for name, source, entry in zip(names, sources, entries, strict=True)
        ]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open a data folder; sizes are checked, checksums are not.

        Raises DataError when it is missing, unfinished, of another version or damaged.
        """
        if not folder.is_dir():
            raise DataError(f"there is no data folder {folder}. Make one: inkling prep PATH… -o {folder}")
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise DataError(f"{folder} is unfinished: it has no {MANIFEST_FILE}. Run the same inkling prep again")
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version = manifest["format_version"]
            if version != FORMAT_VERSION:
                raise DataError(f"{folder} has format version {version}, this Inkling reads {FORMAT_VERSION}")
            return cls(folder, manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error!r}). Prepare the folder again with --overwrite") from None

    def filled(self, name: SplitName) -> TokenSplit:
        """A split. Raises DataError where it is empty, and could tell nothing of a model."""
        split = self.validation if name == "validation" else self.train
        if not split.num_tokens:
            raise DataError(f"the {name} split of {self.folder} is empty: see inkling prep --val-fraction")
        return split

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises TokenizerError when `tokenizer` is not the one the shards were made with."""
        if tokenizer.sha256 != self.tokenizer_sha256:
            raise TokenizerError(
                f"{self.folder} was made with another tokenizer ({self.tokenizer_sha256[:12]}, this one is "
                f"{tokenizer.sha256[:12]}). Prepare the text again with this one: inkling prep --tokenizer"
            )

    def check_checksums(self) -> None:
        """Raises DataError when a shard's content is not what the manifest says. Reads everything."""
        for split in (self.train, self.validation):
            for folder, shard in split._places:
                with (folder / f"{shard.name}.bin").open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != shard.sha256:
                    raise DataError(f"{folder / shard.name}.bin was altered. Prepare the folder again")


def write_manifest(
    folder: Path,
    *,
    tokenizer: Tokenizer,
    shards: dict[SplitName, list[ShardInfo]],
    more: dict[str, Any],
) -> None:
    """Finish a data folder. `more` tells how it was made: split rule, cleaning, sources."""
    splits = {
        split: {
            "num_documents": sum(shard.num_documents for shard in infos),
            "num_tokens": sum(shard.num_tokens for shard in infos),
            "num_bytes": sum(shard.num_bytes for shard in infos),
            "shards": [asdict(shard) for shard in infos],
        }
        for split, infos in shards.items()
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "eot_id": tokenizer.eot_id,
        "documents_end_with_eot": True,
        "splits": splits,
        **more,
    }
    files.write_json(folder / MANIFEST_FILE, manifest)


def manifest_sha256(folder: Path) -> str:
    """SHA-256 of the data folder's manifest, which itself names the hash of each shard."""
    return hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()


def _shards_of(manifest: dict[str, Any], split: SplitName) -> list[ShardInfo]:
    return [ShardInfo(**shard) for shard in manifest["splits"][split]["shards"]]


def _map(path: Path, count: int, dtype: np.dtype[Any]) -> np.ndarray:
    size = path.stat().st_size if path.exists() else 0
    if size != count * dtype.itemsize:
        wanted = count * dtype.itemsize
        raise DataError(f"{path} has {size:,} bytes instead of {wanted:,}. Prepare the folder again with --overwrite")
    return np.memmap(path, dtype, mode="r") if count else np.empty(0, dtype)
