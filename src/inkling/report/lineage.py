"""Where a run comes from, and what came of it: from sources to exports, each link checked by its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from inkling import checkpoint
from inkling.data.shards import MANIFEST_FILE, manifest_sha256
from inkling.errors import InklingError
from inkling.tensor_files import checksum, is_whole
from inkling.tokenizer import Tokenizer

EXPORTS_FILE = "exports.jsonl"
Check = Literal["same", "changed", "missing", "unknown"]
_MAX_DEPTH = 20


@dataclass(frozen=True)
class Link:
    """One step of the way.

    Attributes:
        kind: source, data, tokenizer, run, import, export.
        check: Whether what lies there now is what it was.
        depth: How far it is from the run: parents are deeper.
    """

    kind: str
    name: str
    sha256: str
    check: Check
    depth: int = 0
    note: str = ""


def lineage(run: Path) -> list[Link]:
    """All that led to a run, the farthest first, the run, and its exports. Raises CheckpointError for no run."""
    return [*_ancestors(run, 0), *_exports(run)]


def note_export(run: Path, path: Path, type_name: str) -> None:
    """Write down that a run was exported."""
    line = {
        "path": str(path.resolve()),
        "type": type_name,
        "sha256": _hash_of(path),
        "weights": checksum(run / checkpoint.WEIGHTS_FILE),
    }
    with (run / EXPORTS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _ancestors(run: Path, depth: int) -> list[Link]:
    record = checkpoint.read_run(run)
    found: list[Link] = []
    for way in ("start_from", "quantized_from"):
        parent = record.data.get(way) or record.settings.get(way)
        if parent and depth < _MAX_DEPTH:
            found += _parent(Path(str(parent)), str(record.data.get(f"{way}_sha256", "")), depth + 1)
    if "imported_from" in record.data:
        source = Path(str(record.data["imported_from"]))
        check: Check = "unknown" if source.exists() else "missing"
        found.append(Link("import", str(source), "", check, depth + 1, str(record.data.get("kind", ""))))
    if "rows_sha256" in record.data:
        rows = Path(str(record.data["folder"]))
        is_there: Check = "unknown" if rows.exists() else "missing"
        found.append(Link("data", str(rows), str(record.data["rows_sha256"]), is_there, depth + 1, "rows"))
    elif "folder" in record.data:
        found += _data(Path(str(record.data["folder"])), str(record.data.get("manifest_sha256", "")), depth + 1)
    weights = run / checkpoint.WEIGHTS_FILE
    check = "unknown" if not checksum(weights) else "same" if is_whole(weights) else "changed"
    found.append(Link("run", str(run), checksum(weights), check, depth, record.status))
    return found


def _parent(run: Path, expected: str, depth: int) -> list[Link]:
    """The run that another began with, and what led to it; its weights are compared with those of then."""
    try:
        *before, link = _ancestors(run, depth)
    except InklingError:
        return [Link("run", str(run), expected, "missing", depth)]
    check: Check = (
        link.check if not expected or link.check == "changed" else "same" if link.sha256 == expected else "changed"
    )
    return [*before, replace(link, check="unknown" if not expected else check)]


def _data(folder: Path, expected: str, depth: int) -> list[Link]:
    """A data folder, its sources and its tokenizer."""
    try:
        now = manifest_sha256(folder)
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, InklingError):
        return [Link("data", str(folder), expected, "missing", depth)]
    found = [
        Link("source", str(source["path"]), str(source.get("sha256", "")), "unknown", depth + 1)
        for source in sorted(manifest.get("sources", []), key=lambda one: -one.get("bytes", 0))
    ]
    for part in manifest.get("mixture", []):
        found += _data((folder / part["folder"]).resolve(), part["manifest_sha256"], depth + 1)
    found.append(Link("data", str(folder), expected, "same" if now == expected else "changed", depth))
    expected = str(manifest.get("tokenizer_sha256", ""))
    found.append(Link("tokenizer", str(folder / "tokenizer.json"), expected, _tokenizer_check(folder, expected), depth))
    return found


def _tokenizer_check(folder: Path, expected: str) -> Check:
    try:
        return "same" if Tokenizer.load(folder).sha256 == expected else "changed"
    except InklingError:
        return "missing"


def _exports(run: Path) -> list[Link]:
    path = run / EXPORTS_FILE
    if not path.is_file():
        return []
    weights, found = checksum(run / checkpoint.WEIGHTS_FILE), []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            one = json.loads(line)
            target, expected = Path(one["path"]), one["sha256"]
        except (ValueError, KeyError, TypeError):
            found.append(Link("export", f"{path}, a line that cannot be read", "", "unknown"))
            continue
        check: Check = "missing" if not target.exists() else "same" if _hash_of(target) == expected else "changed"
        older = "" if one.get("weights") == weights else ", of earlier weights"
        found.append(Link("export", str(target), expected, check, 0, f"{one.get('type', '')}{older}"))
    return found


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _hash_of(path: Path) -> str:
    """Of a file, or of all files in a folder with their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        digest.update(_file_hash(file))
    return digest.hexdigest()
