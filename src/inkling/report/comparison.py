"""Runs side by side, and whether their differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from inkling import pages
from inkling.errors import ConfigError
from inkling.eval.statistics import Difference, bootstrap, paired_difference

_LESS_IS_BETTER = {"bits per byte"}


@dataclass(frozen=True)
class Row:
    """A figure of all that are compared.

    Attributes:
        values: Of each; None where it was not measured.
        differences: Of each from the first, where both were asked the same.
    """

    name: str
    values: list[float | None]
    intervals: list[tuple[float, float] | None]
    differences: list[Difference | None]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "name": self.name,
            "values": self.values,
            "intervals": self.intervals,
            "differences": [None if one is None else asdict(one) for one in self.differences],
        }


def compare(all_facts: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The figures of some runs, each beside the first.

    Raises:
        ConfigError: There are fewer than two.
    """
    if len(all_facts) < 2:
        raise ConfigError("give two runs at least, such as: inkling compare runs/a runs/b")
    texts = _texts(all_facts)
    rows = [
        _plain("parameters", [facts["num_parameters"] for facts in all_facts]),
        _plain("seconds of training", [facts["cost"]["seconds_of_training"] for facts in all_facts]),
        _text(texts),
        _plain("perplexity", [None if one is None else one["perplexity"] for one in texts]),
    ]
    names = sorted({name for facts in all_facts for name in facts["evaluations"]} - {"text"})
    for name in names:
        rows += _task(name, [facts["evaluations"].get(name) for facts in all_facts])
    if _has_different_tokenizers(all_facts):
        rows = [row for row in rows if "perplexity" not in row.name]
    return [row for row in rows if any(value is not None for value in row.values)]


def _plain(name: str, values: list[float | None]) -> Row:
    return Row(name, values, [None] * len(values), [None] * len(values))


def _text(found: Sequence[Mapping[str, Any] | None]) -> Row:
    """Bits per byte, which may be compared across tokenizers; document by document where the text is the same."""
    values = [None if one is None else float(one["bits_per_byte"]) for one in found]
    intervals = [
        (one["interval"]["low"], one["interval"]["high"]) if one is not None and one["num_documents"] > 1 else None
        for one in found
    ]  # of a single document none can be told
    first = _documents(found[0])
    differences: list[Difference | None] = [None]
    for one in found[1:]:
        other = _documents(one)
        is_same = first is not None and other is not None and np.array_equal(first[1], other[1]) and len(first[1]) > 1
        differences.append(_difference_of_bits(first, other) if is_same and first and other else None)
    return Row("bits per byte", values, intervals, differences)


def _documents(found: Mapping[str, Any] | None) -> tuple[np.ndarray, np.ndarray] | None:
    if found is None or "documents" not in found:
        return None
    return np.array(found["documents"]["nats"]) / math.log(2), np.array(found["documents"]["num_bytes"])


def _difference_of_bits(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Difference:
    """Of bits per byte on the same documents: each counts by its bytes."""
    bits, num_bytes = second[0] - first[0], first[1]
    low, high = bootstrap(bits, num_bytes)
    signs = paired_difference(np.zeros(len(bits)).tolist(), bits.tolist())
    return Difference(float(bits.sum() / num_bytes.sum()), low, high, signs.p_value)


def _texts(all_facts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any] | None]:
    return [facts["evaluations"].get("text") for facts in all_facts]


def _has_different_tokenizers(all_facts: Sequence[Mapping[str, Any]]) -> bool:
    """What a token is decides what perplexity means; of a tokenizer that is not known nothing can be said."""
    tokenizers = {
        next((link["sha256"] for link in facts["lineage"] if link["kind"] == "tokenizer"), "") for facts in all_facts
    }
    return tokenizers == {""} or len(tokenizers) > 1


def notes_of(all_facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must be known beside the figures."""
    notes = []
    texts = [one for one in _texts(all_facts) if one is not None]
    if texts and _has_different_tokenizers(all_facts):
        notes.append("perplexity is left out: the tokenizers differ; bits per byte may be compared")
    if len({(one["num_bytes"], one["num_documents"]) for one in texts}) > 1:
        notes.append("bits per byte are of different texts: put all to the same with inkling eval RUN --data FOLDER")
    return notes


def _task(name: str, found: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    metrics = list(dict.fromkeys(metric for one in found if one is not None for metric in one["metrics"]))
    rows = []
    for metric in metrics:
        estimates = [None if one is None else one["metrics"].get(metric) for one in found]
        values = [None if one is None else float(one["value"]) for one in estimates]
        intervals = [None if one is None or one["low"] is None else (one["low"], one["high"]) for one in estimates]
        by_item = [{} if one is None else _of_items(one, metric) for one in found]
        differences: list[Difference | None] = [None]
        for other in by_item[1:]:
            shared = sorted(by_item[0].keys() & other.keys())  # of the same questions alone
            pairs = [by_item[0][item] for item in shared], [other[item] for item in shared]
            differences.append(paired_difference(*pairs) if len(shared) > 1 else None)
        rows.append(Row(f"{name}: {metric}", values, intervals, differences))
    return rows


def _of_items(found: Mapping[str, Any], metric: str) -> dict[tuple[str, str], float]:
    """By name and hash of a question: with another seed or file, the same name is another question."""
    items = [item for item in found.get("items", []) if item.get(metric) is not None]
    return {(item["id"], item.get("question", "")): float(item[metric]) for item in items}


def write_comparison(
    path: Path, names: Sequence[str], rows: Sequence[Row], curves: Mapping[str, pages.Points], notes: Sequence[str]
) -> None:
    """The same as a page."""
    table = [
        [
            row.name,
            *(
                _cell(value) + ("" if difference is None else f"<small>{_said(difference)}</small>")
                for value, difference in zip(row.values, row.differences, strict=True)
            ),
        ]
        for row in rows
    ]
    plots = []
    for row in rows:
        measured = [
            (name, value, *(interval or (value, value)))
            for name, value, interval in zip(names, row.values, row.intervals, strict=True)
            if value is not None
        ]
        if any(interval is not None for interval in row.intervals) and len(measured) > 1:
            better = " (less is better)" if row.name in _LESS_IS_BETTER else ""
            plots.append(pages.intervals(f"{row.name}{better}", measured))
    sections = [
        "<h1>Runs side by side</h1>",
        pages.table("", ["", *names], table, numbers=tuple(names)),
        '<p class="soft">Differences are from the first, on the same documents or questions, with 95 % intervals.</p>',
        *(f'<p class="soft">Note: {escape(note)}.</p>' for note in notes),
        pages.curves("Validation", curves, x="step", y="bits per byte"),
        *plots,
    ]
    pages.write_page(path, "Runs side by side", sections)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.4f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def _said(difference: Difference) -> str:
    if difference.low == difference.high == 0:
        return "no difference in any of them"
    chance = f"p = {difference.p_value:.3f}" if difference.p_value >= 0.001 else "p < 0.001"
    return (
        f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
        f"{', significant' if difference.is_significant else ''}, {chance}"
    )


def lines_of(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """A table for the terminal."""
    width = max(len(row.name) for row in rows)
    columns = [max(12, len(name)) for name in names]
    found = [" " * width + "".join(f"  {name:>{size}}" for name, size in zip(names, columns, strict=True))]
    for row in rows:
        cells = "".join(f"  {_cell(value):>{size}}" for value, size in zip(row.values, columns, strict=True))
        found.append(f"{row.name:<{width}}{cells}")
        for name, difference in zip(names, row.differences, strict=True):
            if difference is not None:
                found.append(f"{'':<{width}}    {name}: {_said(difference)}")
    return found
