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
td.number small { display: block; white-space: normal; opacity: .75; }
code.short { white-space: nowrap; }
svg { width: 100%; height: auto; overflow: visible; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; }
svg .grid { stroke: currentColor; stroke-opacity: .15; }
svg * { vector-effect: non-scaling-stroke; }
svg .mark { stroke: var(--c); fill: none; stroke-width: 2; }
.legend span { white-space: nowrap; margin-left: 1rem; } .legend i { border-bottom: 4px solid var(--c);
  display: inline-block; width: .8rem; margin-right: .4rem; vertical-align: middle; }
.row { display: grid; grid-template-columns: minmax(0, 17rem) 1fr 11rem; column-gap: .8rem;
  font-size: .85em; line-height: 1.25; }
.row span { align-self: center; } .row .name { text-align: right; overflow-wrap: anywhere; padding: .2rem 0; }
.row .track { align-self: stretch; position: relative; min-height: 1.6rem; margin: 0 .6rem; }
.track > * { position: absolute; }
.track .grid { top: 0; bottom: 0; border-left: 1px solid var(--line); }
.track .whisker { top: 50%; height: 2px; margin-top: -1px; background: var(--c); }
.track .dot { top: 50%; width: .6rem; height: .6rem; margin: -.3rem; border-radius: 50%; background: var(--c); }
.track .floor { top: 15%; bottom: 15%; margin-left: -1px; border-left: 3px solid var(--c); }
.axis small { transform: translateX(-50%); }
.s0 { --c: #4a6fa5; } .s1 { --c: #c2693d; } .s2 { --c: #4f8f5b; }
.s3 { --c: #8a63a8; } .s4 { --c: #a8963a; } .s5 { --c: #a04a62; }
@media (prefers-color-scheme: dark) {
  :root { --bar: #8fb0e0; }
  .s0 { --c: #8fb0e0; } .s1 { --c: #e6a077; } .s2 { --c: #8cc898; }
  .s3 { --c: #c0a0dd; } .s4 { --c: #d8c878; } .s5 { --c: #e08fa5; }
}
@media (max-width: 40rem) {
  th, td { padding: .3rem; font-size: .85em; } svg { font-size: 22px; }
  .row { grid-template-columns: 1fr auto; } .row .name { text-align: left; }
  .row .track { grid-row: 2; grid-column: 1 / 3; }
}
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 260, 72, 34, 14
_NUM_STYLES = 6


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
    legend = [f"{escape(y)} by {escape(x)}"]
    for number, (name, points) in enumerate(series.items()):
        line = " ".join(f"{to_x(a):.1f},{max(to_y(b), _TOP):.1f}" for a, b in _thinned(points))
        style = f"s{number % _NUM_STYLES}"
        parts.append(f'<g class="{style}"><polyline class="mark" points="{line}"/></g>')
        legend.append(f'<span class="{style}"><i></i>{escape(name)}</span>')
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f'<h2>{escape(title)}</h2>\n<figure>{svg}<figcaption class="legend">{" ".join(legend)}</figcaption></figure>'


def intervals(
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    *,
    colours: Mapping[str, int] | None = None,
    floors: Mapping[str, float] | None = None,
    caption: str = "",
) -> str:
    """A plot of values with their intervals, a row each: name, value, low, high (both the value where there is none).

    Args:
        colours: Number of the colour of each name. Default: all differ.
        floors: A mark in the row of each name.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return ""
    ends = [end for row in rows for end in row[1:]] + list((floors or {}).values())
    pad = 0.05 * (max(ends) - min(ends) or 1.0)
    to_x, ticks = _axis(min(ends) - pad, max(ends) + pad, 0, 100)
    grid = "".join(f'<i class="grid" style="left:{place:.2f}%"></i>' for _, place in ticks)
    parts = []
    for number, (name, value, low, high) in enumerate(rows):
        style = f"s{(number if colours is None else colours.get(name, 0)) % _NUM_STYLES}"
        marks = f'<i class="whisker {style}" style="left:{to_x(low):.2f}%;width:{to_x(high) - to_x(low):.2f}%"></i>'
        if floors and name in floors:
            marks += f'<i class="floor s1" style="left:{to_x(floors[name]):.2f}%"></i>'
        marks += f'<i class="dot {style}" style="left:{to_x(value):.2f}%"></i>'
        said = f"{value:.3f}" if low == high else f"{value:.3f} ({low:.3f} to {high:.3f})"
        parts.append(_row(escape(name), grid + marks, said))
    axis = "".join(f'<small style="left:{place:.2f}%">{value:g}</small>' for value, place in ticks)
    parts.append(_row("", axis, "", kind="row axis"))
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<h2>{escape(title)}</h2>\n<figure>{''.join(parts)}{told}</figure>"


def _row(name: str, track: str, value: str, kind: str = "row") -> str:
    parts = (f'<span class="{of}">{content}</span>' for of, content in (("name", name), ("track", track), ("", value)))
    return f'<div class="{kind}">{"".join(parts)}</div>\n'


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
