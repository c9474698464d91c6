"""Runs side by side as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from inkling import files, pages
from inkling.report.comparison import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
_ROW_INCHES = 0.3
_COLUMNS = 2


def write_plot(path: Path, names: Sequence[str], rows: Sequence[Row], curves: Mapping[str, pages.Points]) -> None:
    """Validation curves, and each figure that has an interval with it; the format is that of the path's suffix."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes 0.3 s
    from matplotlib.figure import Figure

    measured = [row for row in rows if any(interval is not None for interval in row.intervals)]
    num_lines = -(-len(measured) // _COLUMNS)
    heights = [3.0] + [0.9 + _ROW_INCHES * len(names)] * num_lines
    figure = Figure(figsize=(10, sum(heights)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + num_lines, _COLUMNS, height_ratios=heights)
    axes = figure.add_subplot(grid[0, :])
    for number, name in enumerate(names):
        steps, values = [step for step, _ in curves[name]], [value for _, value in curves[name]]
        axes.plot(steps, values, color=f"C{number}", label=name)
    axes.set(title="validation", xlabel="step", ylabel="bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    for number, row in enumerate(measured):
        _draw(figure.add_subplot(grid[1 + number // _COLUMNS, number % _COLUMNS]), row, names)
    files.write_file(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:]))


def _draw(axes: Axes, row: Row, names: Sequence[str]) -> None:
    for number, (value, interval) in enumerate(zip(row.values, row.intervals, strict=True)):
        if value is not None:
            axes.plot([value], [number], "o", color=f"C{number}")
        if interval is not None:
            axes.plot(interval, [number, number], color=f"C{number}")
    axes.set(title=row.name, yticks=range(len(names)), yticklabels=list(names), ylim=(len(names) - 0.5, -0.5))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(alpha=0.3, axis="x")
