"""Jupyter notebooks: the text of code and Markdown cells in their order, without outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from inkling.data.documents import Document, Skipped
from inkling.data.formats._decode import decode

SUFFIXES = (".ipynb",)
MAX_BYTES = 64 << 20


def read(file: BinaryIO, name: str) -> Iterator[Document | Skipped]:
    """The notebook, as one document."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        yield Skipped("too_long", len(data), f"{name}: a notebook of more than {MAX_BYTES / 1e6:.0f} MB")
        return
    text = decode(data, name)
    if isinstance(text, Skipped):
        yield text
        return
    try:
        cells = json.loads(text)["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] in ("code", "markdown")]
        parts = [part if isinstance(part, str) else "".join(part) for part in sources]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield Skipped("bad_json", len(data), f"{name}: no notebook ({error!r})"[:300])
        return
    joined = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    yield Document(joined.encode("utf-8", errors="replace").decode(), name)
