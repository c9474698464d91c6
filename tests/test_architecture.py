"""Who may import whom: the table in docs/architecture.md, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import inkling

SOURCE = Path(inkling.__file__).parent
ROWS = [
    {"errors", "config", "files", "processes", "progress", "machine", "upgrade", "pages", "tensor_files"},
    {"tokenizer", "models", "optim", "gguf", "quantize", "sandbox", "align", "peft"},
    {"data", "checkpoint"},
    {"train", "eval", "infer", "export", "importers", "rewards"},
    {"serve", "report"},
    {"commands", "api"},
    {"cli", "harness"},
]
ROW_OF = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
ALLOWED_WITHIN_ROW = {
    "config": {"errors", "cli"},
    "machine": {"errors"},
    "files": {"errors"},
    "pages": {"files"},
    "progress": {"errors"},
    "tensor_files": {"errors", "files"},
    "peft": {"quantize"},
}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in ROW_OF)


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "inkling":
                names = [f"inkling.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("inkling.")}
    return rooms & ROW_OF.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above(path: Path) -> None:
    room = room_of(path)
    for other in imported_rooms(path) - {room} - ALLOWED_WITHIN_ROW.get(room, set()):
        assert ROW_OF[other] < ROW_OF[room], f"{path.relative_to(SOURCE)} imports {other}, which is not above {room}"


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if not path.name.startswith("_")}
    assert rooms - {"py.typed"} == ROW_OF.keys()


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    for number, rooms in enumerate(ROWS):
        line = next(line for line in text.splitlines() if line.startswith(f"| {number} |"))
        documented = {word.strip("`") for word in line.split("|")[2].split()}
        assert documented == rooms
