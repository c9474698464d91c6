"""A run as a page: curves, scores beside their floors, samples, data, cost, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from inkling import pages
from inkling.eval.tasks import highest_floors

_MAX_SOURCES = 12
_CHECKS = {"same": "as it was", "changed": "has changed since", "missing": "is not there", "unknown": "not checked"}
_FLOORS = {"trigram": "byte trigrams of the training text", "xz": "xz -9 of the text"}


def write_report(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the page of what `facts_of` found."""
    curve = facts["curve"]
    sections = [
        f"<h1>{escape(Path(facts['run']).name)}</h1>",
        _summary(facts),
        pages.curves("Reward", {"training": curve["reward"], "validation": curve["val_reward"]}, x="step", y="reward"),
        pages.curves("Loss", {"training": curve["loss"], "validation": curve["val_loss"]}, x="step", y="loss"),
        _tuning(facts["results"]),
        pages.curves("Validation", {"bits per byte": curve["val_bits_per_byte"]}, x="step", y="bits per byte"),
        _text(facts["evaluations"].get("text")),
        *(_task(one) for name, one in facts["evaluations"].items() if name != "text"),
        _samples(facts["samples"]),
        _data(facts["data"]),
        _cost(facts),
        _lineage(facts["lineage"]),
    ]
    pages.write_page(path, Path(facts["run"]).name, sections)


def _summary(facts: Mapping[str, Any]) -> str:
    results = facts["results"]
    best = results.get("validation", {}).get("val_bits_per_byte")
    said = f"{facts['num_parameters']:,} parameters, {escape(str(facts['model_type']))}, {escape(facts['status'])}"
    if best is not None:
        said += f"; best validation {best:.4f} bits per byte"
    return f"<p>{said}.</p>"


def _tuning(results: Mapping[str, Any]) -> str:
    """Validation scores before and after tuning, and what was warned of."""
    before, after = results.get("start"), results.get("validation", {})
    if before is None:
        return ""
    rows = [
        [escape(name.removeprefix("val_").replace("_", " ")), f"{before.get(name, float('nan')):.4f}", f"{value:.4f}"]
        for name, value in after.items()
    ]
    warnings = {warning[:20]: warning for warning in results.get("warnings", [])}  # the last of each kind
    told = "".join(f"<p>Warning: {escape(warning)}</p>" for warning in warnings.values())
    return pages.table("What it learnt", ["validation", "before", "after"], rows, numbers=("before", "after")) + told


def _text(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return '<h2>How well it predicts</h2><p class="soft">Not measured yet: inkling eval RUN</p>'
    rows = [("this run", *_three(found["interval"]))]
    rows += [(_FLOORS.get(name, name), value, value, value) for name, value in found["floors"].items()]
    caption = (
        f"{found['text']}: {found['num_documents']:,} documents, {found['num_bytes']:,} bytes. Loss "
        f"{found['loss']:.4f} nats and perplexity {found['perplexity']:.2f} per token. Lines are 95 % intervals over "
        "documents."
    )
    colours = {name: 1 for name, *_ in rows[1:]}
    plot = pages.intervals(
        "How well it predicts, bits per byte (less is better)", rows, colours=colours, caption=caption
    )
    lengths = [
        [escape(name), f"{one['bits_per_byte']:.4f}", f"{one['num_bytes']:,}"]
        for name, one in {**found.get("sources", {}), **found.get("by_length", {})}.items()
    ]
    parts = [plot, pages.table("", ["part", "bits per byte", "bytes"], lengths, numbers=("bits per byte", "bytes"))]
    if "num_leaked" in found:
        parts.append(f"<p>{found['num_leaked']:,} validation documents stand in the training text too.</p>")
        for name, one in found.get("by_heart", {}).items():
            whole = one["whole"]
            parts.append(f"<p>By heart: {whole['value']:.1%} of {whole['count']} sequences of the {name} text.</p>")
    return "\n".join(parts)


def _task(found: Mapping[str, Any]) -> str:
    headline = found["headline"]
    rows = [(name, *_three(one)) for name, one in found["metrics"].items() if name != "snippet perplexity"]
    colours = {}
    for floor, values in found["floors"].items():
        value = values.get(headline, values.get(""))
        if value is not None:
            rows.append((floor, value, value, value))
            colours[floor] = 2 if floor.startswith("ceiling") else 1
    highest = highest_floors(headline, found["floors"])
    told = f" An upright mark is a figure's highest floor; below stand all floors of {headline}." if highest else ""
    caption = f"{found['num_items']:,} questions.{told} {found['note']}"
    return pages.intervals(f"{found['task']}: {headline}", rows, colours=colours, floors=highest, caption=caption)


def _three(one: Mapping[str, Any]) -> tuple[float, float, float]:
    value = float(one["value"])
    return value, value if one["low"] is None else one["low"], value if one["high"] is None else one["high"]


def _samples(samples: Mapping[str, str]) -> str:
    if not samples:
        return ""
    parts = [f"<h3>{escape(title)}</h3><pre>{escape(text)}</pre>" for title, text in samples.items()]
    return "<h2>What it writes</h2>" + "".join(parts)


def _data(data: Mapping[str, Any] | None) -> str:
    if data is None:
        return ""
    if not data["is_there"]:
        return f"<h2>Data</h2><p><code>{escape(data['folder'])}</code> is not there any more.</p>"
    if data.get("rows"):
        return f"<h2>Data</h2><p>Rows of <code>{escape(data['folder'])}</code>.</p>"
    rows = [
        [escape(name), f"{one['num_documents']:,}", f"{one['num_tokens']:,}", f"{one['num_bytes'] / 1e6:,.2f} MB"]
        for name, one in data["splits"].items()
    ]
    numbers = ("documents", "tokens", "text")
    parts = [pages.table("Data and tokenizer", ["split", "documents", "tokens", "text"], rows, numbers=numbers)]
    if data["bytes_per_token"]:
        parts.append(f"<p>{data['vocab_size']:,} tokens, {data['bytes_per_token']:.2f} bytes of text each.</p>")
    dropped = ", ".join(f"{count:,} {escape(reason.replace('_', ' '))}" for reason, count in data["dropped"].items())
    parts.append(f"<p>Documents dropped: {dropped or 'none'}.</p>")
    return "\n".join(parts)


def _cost(facts: Mapping[str, Any]) -> str:
    cost, hardware = facts["cost"], facts["hardware"]
    rows = [
        ["time of training", _seconds(cost["seconds_of_training"])],
        ["time in all", f"{_seconds(cost['seconds_in_all'])} in {cost['sessions']} sessions"],
        ["speed", "" if cost["tokens_per_s"] is None else f"{cost['tokens_per_s']:,.0f} tokens/s in the median"],
        ["machine", escape(", ".join(str(value) for value in hardware.values() if not isinstance(value, list)))],
        ["versions", escape(", ".join(f"{name} {value}" for name, value in facts["versions"].items()))],
    ]
    return pages.table("What it took", ["", "this run"], [row for row in rows if row[1]])


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} s" if value < 600 else f"{value / 60:,.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def _lineage(links: Sequence[Mapping[str, Any]]) -> str:
    sources = [link for link in links if link["kind"] == "source"]
    left_out = {id(link) for link in sources[_MAX_SOURCES:]}
    rows = [
        [
            escape(link["kind"]),
            f"<code>{escape(link['name'])}</code> {escape(link['note'])}",
            f'<code class="short">{escape(link["sha256"][:12])}</code>',
            _CHECKS[link["check"]],
        ]
        for link in links
        if id(link) not in left_out
    ]
    if left_out:
        rows.insert(_MAX_SOURCES, ["source", f"and {len(left_out):,} more", "", ""])
    return pages.table("Where it comes from", ["what", "which", "hash", "now"], rows)
