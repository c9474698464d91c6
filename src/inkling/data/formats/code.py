"""Source code: a file is a document, without the licence at its top. Generated files are skipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

_LANGUAGES = {
    "Python": (".py", ".pyi"),
    "JavaScript": (".js", ".mjs", ".jsx"),
    "TypeScript": (".ts", ".tsx"),
    "Java": (".java",),
    "Kotlin": (".kt",),
    "Scala": (".scala",),
    "C": (".c", ".h"),
    "C++": (".cc", ".cpp", ".hpp", ".cu"),
    "C#": (".cs",),
    "Go": (".go",),
    "Rust": (".rs",),
    "Swift": (".swift",),
    "Ruby": (".rb",),
    "PHP": (".php",),
    "Perl": (".pl",),
    "Lua": (".lua",),
    "R": (".r",),
    "Julia": (".jl",),
    "Haskell": (".hs",),
    "OCaml": (".ml",),
    "Shell": (".sh", ".bash"),
    "SQL": (".sql",),
    "CSS": (".css",),
    "YAML": (".yaml", ".yml"),
    "TOML": (".toml",),
    "CMake": (".cmake",),
    "Tcl": (".tcl",),
    "Elixir": (".ex",),
    "Lisp": (".clj", ".lisp"),
}
_LANGUAGE_OF = {suffix: language for language, suffixes in _LANGUAGES.items() for suffix in suffixes}
SUFFIXES = tuple(_LANGUAGE_OF)

MAX_FILE_BYTES = 4 << 20
"""Larger source files are generated."""
_GENERATED = re.compile(r"@generated|\bDO NOT EDIT\b|\b(?:auto-?)?generated (?:by|from|with)\b", re.IGNORECASE)
_GENERATED_WITHIN = 1000
_COMMENT_LINE = re.compile(r"[ \t]*(?:#(?!!|include|define|if|pragma)|//|--|;|%).*(?:\n|\Z)")
_COMMENT_BLOCK = re.compile(r"\s*/\*.{0,20000}?\*/[ \t]*\n?", re.DOTALL)
_LICENCE = re.compile(r"licen[cs]e|copyright|\(c\) \d{4}|spdx", re.IGNORECASE)


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The file, as one document."""
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        yield Skipped("generated", len(data), f"{name}: more than {MAX_FILE_BYTES / 1e6:.1f} MB of source code")
        return
    text = decode(data, name)
    if isinstance(text, Skipped):
        yield text
        return
    generated = _GENERATED.search(text[:_GENERATED_WITHIN])
    if generated and _is_comment(text, generated.start()):
        yield Skipped("generated", len(data), f"{name}: says {generated.group()!r}")
        return
    yield Document(strip_licence(text), name, {"language": _LANGUAGE_OF.get(PurePath(name).suffix.lower(), "")})


def _is_comment(text: str, position: int) -> bool:
    """Whether a position lies in a line that begins like a comment."""
    line = text[text.rfind("\n", 0, position) + 1 : position].lstrip()
    return line == "" or line.startswith(("#", "//", "/*", "*", "--", ";", "%", "<!--"))


def strip_licence(text: str) -> str:
    """Source code without a licence or copyright comment at its top; other comments stay."""
    start = 0
    if text.startswith("#!"):
        start = text.find("\n") + 1
    end = _end_of_comment(text, start)
    if end == start or not _LICENCE.search(text, start, end):
        return text
    return text[:start] + text[end:].lstrip("\n")


def _end_of_comment(text: str, start: int) -> int:
    block = _COMMENT_BLOCK.match(text, start)
    if block:
        return block.end()
    end = start
    while (line := _COMMENT_LINE.match(text, end)) and line.end() > end:
        end = line.end()
    return end
