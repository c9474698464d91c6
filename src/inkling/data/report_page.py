"""The account of a preparation as a page that people read: one HTML file, nothing fetched, no script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from inkling import files

_TITLE = "What was in the text"
_MAX_SOURCES = 20
_STYLE = """
:root { color-scheme: light dark; --bar: #4a6fa5; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { background: var(--bar); height: .6rem; border-radius: .3rem; min-width: 2px; }
code { font-size: .85em; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.1rem; }
"""


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
    body = "\n".join(section for section in sections if section)
    files.write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n",
    )


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
    """A table with its heading; nothing when it has no rows. Cells are HTML."""
    if not rows:
        return ""
    numeric = {"documents", "tokens", "text", "times", "size"}

    def cell(tag: str, column: str, content: str) -> str:
        kind = ' class="number"' if column in numeric else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    header = "".join(cell("th", column, column) for column in head)
    lines = ("".join(cell("td", *pair) for pair in zip(head, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<h2>{title}</h2>\n<table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>"


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.2f} MB"
