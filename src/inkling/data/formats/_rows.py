"""Which field of a row holds its text: the same for JSON, CSV and Parquet."""

from __future__ import annotations

from typing import Any

from inkling.data.documents import Document, Skipped

TEXT_FIELDS = ("text", "content", "body", "article", "document", "story", "code")
"""Usual names, the most usual first."""
_MIN_WORDS = 3
_MIN_CHARACTERS = 20


def document_of(row: Any, place: str, num_bytes: int, field: str | None) -> Document | Skipped:
    """A row as a document, its other fields as metadata; or why it is none: `no_text_field`.

    The text is `field` where one is given; else the first field with a usual name; else the longest field, if that is
    a sentence rather than a name. Chats and preferences keep their whole row as `metadata["row"]`.
    """
    if isinstance(row, str) and field is None:
        return Document(_writable(row), place)
    if not isinstance(row, dict):
        return Skipped("no_text_field", num_bytes, f"{place}: no row with names")
    if field is None:
        conversation = _conversation(row)
        if conversation is not None:
            return Document(_writable(conversation), place, {"row": row})
    name = _name_of_text(row) if field is None else field
    if name is None or not isinstance(row.get(name), str):
        wanted = f"field {field!r}" if field else f"none of {', '.join(TEXT_FIELDS)}"
        there = ", ".join(str(key) for key in list(row)[:8])[:150] or "no fields"
        return Skipped("no_text_field", num_bytes, f"{place}: {wanted} is not text; there is {there}")
    others = {key: value for key, value in row.items() if key != name}
    return Document(_writable(row[name]), place, others, text_field=None if field else name)


def _name_of_text(row: dict[str, Any]) -> str | None:
    for name in TEXT_FIELDS:
        if isinstance(row.get(name), str):
            return name
    strings = {name: value for name, value in row.items() if isinstance(value, str)}
    longest = max(strings, key=lambda name: len(strings[name]), default=None)
    if longest is None:
        return None
    text = strings[longest]
    unspaced = not text.isascii() and len(text) >= _MIN_CHARACTERS
    return longest if len(text.split()) >= _MIN_WORDS or unspaced else None


def _conversation(row: dict[str, Any]) -> str | None:
    """What is said in a row of a chat, an instruction or a preference, for people; None for other rows."""
    for name in ("messages", "conversations"):
        if isinstance(row.get(name), list):
            return _turns(row[name])
    if "chosen" in row and "rejected" in row:
        prompt = _said(row.get("prompt", ""))
        return "\n\n".join(part for part in (prompt, _said(row["chosen"]), _said(row["rejected"])) if part)
    pairs = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("instruction", "output"))
    for prompt, answer in pairs:
        if isinstance(row.get(prompt), (str, list)) and isinstance(row.get(answer), (str, list)):
            more = _said(row.get("input", ""))
            return "\n\n".join(part for part in (_said(row[prompt]), more, _said(row[answer])) if part)
    if isinstance(row.get("image"), str):
        captions = [row[name] for name in ("caption", "text") if isinstance(row.get(name), str)]
        if captions or not any(isinstance(value, str) for name, value in row.items() if name != "image"):
            return str(captions[0]) if captions else ""  # a picture without words is a row that is no good
    if any(isinstance(row.get(name), str) for name in TEXT_FIELDS):
        return None
    for name in ("prompt", "question"):
        if isinstance(row.get(name), (str, list)):
            return _said(row[name])
    return None


def _said(value: Any) -> str:
    if isinstance(value, list):
        return _turns(value)
    return value if isinstance(value, str) else ""


def _turns(turns: list[Any]) -> str:
    lines = []
    for turn in turns:
        if isinstance(turn, dict):
            role = turn.get("role", turn.get("from", ""))
            said = turn.get("content", turn.get("value", ""))
            lines.append(f"{role}: {said}" if isinstance(said, str) else f"{role}:")
    return "\n\n".join(lines)


def _writable(text: str) -> str:
    """Escapes such as \\ud800 are allowed in JSON and are half a character: no text that can be written again."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()
