"""Pages for people: one HTML file, nothing fetched, no script; light and dark, at a desk and on a phone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from inkling import files

_STYLE = """
:root { color-scheme: light dark; --bar: #4a6fa5; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { background: var(--bar); height: .6rem; border-radius: .3rem; min-width: 2px; }
code { font-size: .85em; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 3px solid var(--line); padding-left: .8rem; }
ul { margin: 0; padding-left: 1.1rem; }
figure { margin: 1rem 0; }
figcaption, .soft { opacity: .75; font-size: .9em; }
svg { width: 100%; min-width: 34rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; }
svg .grid { stroke: currentColor; stroke-opacity: .15; }
.s0 { --c: #4a6fa5; } .s1 { --c: #c2693d; } .s2 { --c: #4f8f5b; }
.s3 { --c: #8a63a8; } .s4 { --c: #a8963a; } .s5 { --c: #a04a62; }
@media (prefers-color-scheme: dark) {
  :root { --bar: #8fb0e0; }
  .s0 { --c: #8fb0e0; } .s1 { --c: #e6a077; } .s2 { --c: #8cc898; }
  .s3 { --c: #c0a0dd; } .s4 { --c: #d8c878; } .s5 { --c: #e08fa5; }
}
svg .mark { stroke: var(--c); fill: none; stroke-width: 2; } svg .dot { fill: var(--c); stroke: none; }
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 260, 56, 34, 14
_NUM_STYLES = 6
_LABEL = 44  # letters that fit beside a plot of intervals


def write_page(path: Path, title: str, sections: Sequence[str]) -> None:
    """Write a page; sections are HTML, and empty ones are left out."""
    body = "\n".join(section for section in sections if section)
    files.write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n",
    )


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """A table with its heading; nothing when it has no rows. Cells are HTML.

    Args:
        numbers: Columns that are set to the right.
    """
    if not rows:
        return ""

    def cell(tag: str, column: str, content: str) -> str:
        kind = ' class="number"' if column in numbers else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    header = "".join(cell("th", column, escape(column)) for column in head)
    lines = ("".join(cell("td", *pair) for pair in zip(head, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    heading = f"<h2>{title}</h2>\n" if title else ""
    return f'{heading}<div class="scroll"><table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table></div>'


Points = Sequence[tuple[float, float]]


def curves(title: str, series: Mapping[str, Points], *, x: str, y: str) -> str:
    """A plot of some curves; nothing where there are no points. The highest fiftieth of the values may be cut off."""
    series = {name: [(a, b) for a, b in points if math.isfinite(b)] for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    xs = [a for points in series.values() for a, _ in points]
    ys = sorted(b for points in series.values() for _, b in points)
    low, high = ys[0], ys[min(len(ys) - 1, int(0.98 * len(ys)))]
    pad = 0.05 * ((high - low) or abs(high) or 1)
    to_x, x_ticks = _axis(min(xs), max(xs), _LEFT, _WIDTH - 10)
    to_y, y_ticks = _axis(low - pad, high + pad, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for value, place in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value, place in x_ticks:
        parts.append(f'<text x="{place:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{value:,g}</text>')
    for number, (name, points) in enumerate(series.items()):
        line = " ".join(f"{to_x(a):.1f},{max(to_y(b), _TOP):.1f}" for a, b in _thinned(points))
        style = f"s{number % _NUM_STYLES}"
        parts.append(f'<g class="{style}"><polyline class="mark" points="{line}"/></g>')
        label_y = _TOP + 16 * number + 4
        parts.append(
            f'<g class="{style}"><rect class="dot" x="{_WIDTH - 190}" y="{label_y - 8}" width="12" height="4"/></g>'
            f'<text x="{_WIDTH - 172}" y="{label_y}">{escape(name[:28])}</text>'
        )
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 2}" text-anchor="end">{escape(x)}</text>')
    parts.append(f'<text x="2" y="11">{escape(y)}</text>')
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f'<h2>{escape(title)}</h2>\n<figure><div class="scroll">{svg}</div></figure>'


def intervals(
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    *,
    colours: Mapping[str, int] | None = None,
    caption: str = "",
) -> str:
    """A plot of values with their intervals, a row each: name, value, low, high.

    Args:
        colours: Number of the colour of each name. Default: all differ.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return ""
    ends = [end for row in rows for end in row[1:] if math.isfinite(end)]
    left, height = 300, 26 * len(rows) + 30
    span = max(ends) - min(ends) or 1.0
    to_x, ticks = _axis(min(ends) - 0.05 * span, max(ends) + 0.05 * span, left, _WIDTH - 20)
    parts = []
    for value, place in ticks:
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text x="{place:.1f}" y="{height - 6}" text-anchor="middle">{value:g}</text>')
    for number, (name, value, low, high) in enumerate(rows):
        y, style = 18 + 26 * number, (number if colours is None else colours.get(name, 0)) % _NUM_STYLES
        label = escape(name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…")
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{label}</text>')
        whisker = f'<line class="mark" x1="{to_x(low):.1f}" x2="{to_x(high):.1f}" y1="{y}" y2="{y}"/>'
        whisker = whisker if math.isfinite(low) and math.isfinite(high) else ""
        dot = f'<circle class="dot" cx="{to_x(value):.1f}" cy="{y}" r="4.5"/>'
        parts.append(f'<g class="s{style}">{whisker}{dot}</g>')
    svg = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<h2>{escape(title)}</h2>\n<figure><div class="scroll">{svg}</div>{said}</figure>'


def _thinned(points: Points, most: int = 600) -> Points:
    step = max(1, -(-len(points) // most))
    return [*points[::step], points[-1]]


def _axis(
    low: float, high: float, start: float, stop: float
) -> tuple[Callable[[float], float], list[tuple[float, float]]]:
    """From values to places on the page, and round values to mark with their places."""
    high = high if high > low else low + 1.0

    def to_place(value: float) -> float:
        return start + (value - low) / (high - low) * (stop - start)

    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    values = [round(step * number, 10) for number in range(math.ceil(low / step), int(high // step) + 1)]
    return to_place, [(value, to_place(value)) for value in values]
