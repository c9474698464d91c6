"""The account of a preparation as a page that people read: one HTML file, nothing fetched, no script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from inkling import pages

_TITLE = "What was in the text"
_MAX_SOURCES = 20


def write_page(path: Path, report: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Write the page of a data folder from its `report.json` and `manifest.json`."""
    sections = [
        f"<h1>{_TITLE}</h1>",
        _summary(report, manifest),
        _splits(manifest),
        _dropped(report),
        _changes(report),
        _sources(manifest),
    ]
    pages.write_page(path, _TITLE, sections)


def _summary(report: dict[str, Any], manifest: dict[str, Any]) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in manifest["notes"])
    return (
        f"<p>Read {report['documents_in']:,} documents, {_megabytes(report['bytes_in'])}. "
        f"Kept {report['documents_kept']:,} documents, {_megabytes(report['bytes_kept'])}.</p>"
        f"<p>Split by {escape(manifest['split'])}. Vocabulary: {manifest['vocab_size']:,} tokens.</p><ul>{notes}</ul>"
    )


def _splits(manifest: dict[str, Any]) -> str:
    rows = [
        [split, f"{c['num_documents']:,}", f"{c['num_tokens']:,}", _megabytes(c["num_bytes"])]
        for split, c in manifest["splits"].items()
    ]
    return _table("What is trained on", ["split", "documents", "tokens", "text"], rows)


def _dropped(report: dict[str, Any]) -> str:
    largest = max((entry["documents"] for entry in report["dropped"].values()), default=0)
    rows = []
    for reason, entry in report["dropped"].items():
        bar = f'<div class="bar" style="width:{max(1, round(100 * entry["documents"] / largest))}%"></div>'
        examples = "".join(f"<li><code>{escape(example[:200])}</code></li>" for example in entry["examples"])
        first = f"{escape(reason.replace('_', ' '))}{bar}"
        rows.append([first, f"{entry['documents']:,}", _megabytes(entry["bytes"]), f"<ul>{examples}</ul>"])
    return _table("What was dropped, and why", ["reason", "documents", "text", "such as"], rows)


def _changes(report: dict[str, Any]) -> str:
    rows = [[escape(change.replace("_", " ")), f"{count:,}"] for change, count in report["changes"].items()]
    return _table("What was changed", ["change", "times"], rows)


def _sources(manifest: dict[str, Any]) -> str:
    sources = sorted(manifest["sources"], key=lambda source: -source["bytes"])
    rows = [[f"<code>{escape(s['path'])}</code>", _megabytes(s["bytes"])] for s in sources[:_MAX_SOURCES]]
    more = f" (the largest {_MAX_SOURCES} of {len(sources):,})" if len(sources) > _MAX_SOURCES else ""
    return _table(f"Sources{more}", ["file", "size"], rows)


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    return pages.table(title, head, rows, numbers=("documents", "tokens", "text", "times", "size"))


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.2f} MB"
