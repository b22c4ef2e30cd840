"""Rows of a table become pictures, for light and for dark pages."""

from collections.abc import Callable, Collection, Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.compare.measured import TESTED, VALIDATED, differing_settings
from pipelines.compare.rows import Row
from pipelines.compare.runs import Comparison, is_more_better
from pipelines.runtime.fonts import figure_fonts, figure_text, text_width
from pipelines.runtime.pictures import optional_picture
from pipelines.tracking.recorded import AXIS

_DPI = 110
_MAX_LABEL_WIDTH = 4.2  # inches beside the axes; for longer ones the picture becomes wider
_WIDTH, _ROW_HEIGHT, _LEGEND_HEIGHT = 7.2, 0.42, 0.1  # inches; the last two per row
MAX_CURVES, MAX_CURVES_A_ROW = 12, 10  # rows, and runs of each, whose curves are drawn: more are unreadable
_MAX_BARS = 60
_MAX_NAMED = 30  # points of a plot; beyond, only those of the Pareto front have names
_LOGARITHMIC_FROM = 3  # the largest cost is this many times the smallest
_MAX_AXES = 8
_MAX_LABEL = 48  # characters

Curves = Mapping[str, Sequence[Sequence[tuple[int, float]]]]  # label of a row -> a curve per run


class Picture(NamedTuple):
    """One plot as PNG, for a light and for a dark page."""

    name: str
    title: str
    light: bytes
    dark: bytes


class Drawing(NamedTuple):
    """What `drawn` makes a picture of."""

    name: str
    title: str
    draw: Callable[[Axes], None]
    height: float  # inches


def plot_comparison(comparison: Comparison, curves: Mapping[str, Curves]) -> list[Picture]:
    """Draw bars with intervals, value against cost, curves, and for several axes parallel coordinates.

    A picture that cannot be drawn is left out, with a warning.

    Args:
        comparison: what is drawn.
        curves: name of a metric -> the curves of the best rows; a metric without any curve is left out.
    """
    rows = comparison.rows
    axes_varied = varied_axes(rows)
    texts = [
        comparison.metric,
        *curves,
        *axes_varied,
        *(text for row in rows for text in (row.label, *_settings(row, axes_varied))),
    ]
    height = 1.6 + _ROW_HEIGHT * min(len(rows), _MAX_BARS)
    drawings = [Drawing("bars", f"{comparison.metric} by row", lambda axes: _draw_bars(axes, comparison), height)]
    if any(row.metric("model/gmacs") for row in rows):
        title = f"{comparison.metric} against multiply-adds, with the Pareto front"
        drawings.append(Drawing("macs", title, lambda axes: _draw_macs(axes, comparison), 4.6))
    for metric, of_rows in curves.items():
        if any(curve for each in of_rows.values() for curve in each):
            name = "curves_" + metric.replace("/", "_")
            draw = _curve_drawer(metric, of_rows, num_rows=len(rows))
            drawings.append(Drawing(name, f"{metric} during training", draw, 4.0 + _LEGEND_HEIGHT * len(of_rows)))
    if len(axes_varied) > 1:
        draw_lines = _coordinates_drawer(comparison, axes_varied)
        drawings.append(Drawing("coordinates", "Settings and result, one line per row", draw_lines, 4.4))
    pictures = []
    for drawing in drawings:
        with optional_picture(f"{drawing.name}.png"):
            pictures.append(drawn(drawing, texts))
    return pictures


def pareto_front(rows: Sequence[Row], *, is_more_better: bool) -> list[Row]:
    """The rows that no other beats in both result and multiply-adds; the cheapest first."""
    costed = [(row.metric("model/gmacs") or 0.0, row) for row in rows if row.metric("model/gmacs") is not None]
    front: list[Row] = []
    for _, row in sorted(costed, key=lambda pair: (pair[0], -pair[1].mean if is_more_better else pair[1].mean)):
        if not front or (row.mean > front[-1].mean if is_more_better else row.mean < front[-1].mean):
            front.append(row)
    return front


def varied_axes(rows: Sequence[Row]) -> list[str]:
    """The axes of the drawing: those of a search if all rows are its trials, else the settings that differ."""
    runs = [each for row in rows for each in row.runs]
    of_search = [{name for name in each.facts if name.startswith(AXIS)} for each in runs]
    names = sorted(set.union(*of_search)) if all(of_search) else differing_settings(runs)
    return list(names)[:_MAX_AXES]


def _settings(row: Row, names: Sequence[str]) -> list[str]:
    """The row's values of these settings."""
    return [row.runs[0].facts.get(name, "-") for name in names]


def drawn(drawing: Drawing, texts: Collection[str]) -> Picture:
    """Draw it for both kinds of page.

    Args:
        drawing: what.
        texts: all texts in it, whose letters the fonts must have.
    """

    def in_style(page: str) -> bytes:
        with style.context(page), figure_fonts(texts):
            figure = Figure(figsize=(_WIDTH, drawing.height), layout="constrained")
            axes = figure.add_subplot()
            drawing.draw(axes)
            figure.set_figwidth(_WIDTH + max(0.0, _widest_label(axes) - _MAX_LABEL_WIDTH))
            axes.spines[["top", "right"]].set_visible(False)
            content = BytesIO()
            figure.savefig(content, format="png", dpi=_DPI, transparent=True)
            return content.getvalue()

    return Picture(drawing.name, drawing.title, in_style("default"), in_style("dark_background"))


def _widest_label(axes: Axes) -> float:
    """Inches beside the axes."""
    return max((text_width(label.get_text()) for label in axes.get_yticklabels()), default=0.0)


def _draw_bars(axes: Axes, comparison: Comparison) -> None:
    rows = comparison.rows[:_MAX_BARS]
    _title_if_shortened(axes, len(rows), of=len(comparison.rows))
    has_paper = comparison.metric in (TESTED, VALIDATED) and any(row.paper for row in rows)
    for place, row in enumerate(rows):
        axes.barh(place, row.mean, height=0.62, color="#4c8ac7", zorder=2)
        if (interval := row.interval()) is not None:
            axes.plot(interval, (place, place), color="#c05a1e", linewidth=2, zorder=3)
        axes.scatter(row.values, [place] * len(row.values), s=14, color="#c05a1e", zorder=4)
        if row.paper is not None and has_paper:
            axes.plot([row.paper.top1 / 100] * 2, [place - 0.4, place + 0.4], color="#8a8a8a", linestyle="--", zorder=3)
    axes.set_yticks(range(len(rows)), [figure_text(row.label, max_letters=_MAX_LABEL) for row in rows])
    axes.invert_yaxis()
    # Below the labels too, because it may be wider than the axes.
    axes.figure.supxlabel(
        f"{comparison.metric}: mean; dots: seeds; line: 95 % interval{'; dashed: the paper' if has_paper else ''}",
        fontsize="medium",
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlim(left=0)


def _draw_macs(axes: Axes, comparison: Comparison) -> None:
    front = pareto_front(comparison.rows, is_more_better=is_more_better(comparison.metric))
    points = [(row.metric("model/gmacs") or 0.0, row.mean) for row in front]
    [line] = axes.plot(*zip(*points, strict=True), color="#8a8a8a", drawstyle="steps-post", zorder=1)
    line.set(label="Pareto front", marker="o", markersize=12, fillstyle="none")
    rows = [row for row in comparison.rows if row.metric("model/gmacs") is not None]
    gmacs = [row.metric("model/gmacs") or 0.0 for row in rows]
    spreads = [row.spread or 0.0 for row in rows]
    axes.errorbar(gmacs, [row.mean for row in rows], yerr=spreads, fmt="o", color="#4c8ac7", ecolor="#c05a1e", zorder=2)
    for place, row in enumerate(rows):
        if len(rows) <= _MAX_NAMED or row in front:
            offset = (7, -12 if place % 2 else 6)  # the labels of similar neighbours do not overlap
            text, point = figure_text(row.label, max_letters=22), (gmacs[place], row.mean)
            axes.annotate(text, point, offset, textcoords="offset points", fontsize=8)
    is_wide = max(gmacs) > _LOGARITHMIC_FROM * min(gmacs)
    axes.set_xscale("log" if is_wide else "linear")
    axes.set_xlabel(f"GMAC a clip, forward{' (logarithmic)' if is_wide else ''}")
    axes.set_ylabel(f"{comparison.metric}, +- spread over seeds")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")


def _title_if_shortened(axes: Axes, number: int, *, of: int) -> None:
    if number < of:
        axes.set_title(f"the first {number} of {of} rows", fontsize=9)


def _curve_drawer(metric: str, of_rows: Curves, *, num_rows: int) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        colours = colormaps["tab20" if len(of_rows) > 10 else "tab10"]
        _title_if_shortened(axes, len(of_rows), of=num_rows)
        lines = []
        for number, curves in enumerate(of_rows.values()):
            colour = colours(number)
            for curve in filter(None, curves):
                axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.35, linewidth=1)
            steps, means = _mean_curve(curves)
            lines += axes.plot(steps, means, color=colour, linewidth=2)
        axes.set_xlabel(f"step; thin: runs, at most {MAX_CURVES_A_ROW} per row; thick: their mean")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        # Handed over, because matplotlib leaves out what is labelled `_...`.
        names = [figure_text(label, max_letters=30) for label in of_rows]
        axes.figure.legend(lines, names, frameon=False, fontsize=8, loc="outside lower center", ncols=2)

    return draw


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[list[int], list[float]]:
    """The mean over runs, at every step at which all of them have a value."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            values.setdefault(step, []).append(value)
    steps = sorted(step for step, found in values.items() if len(found) == len(list(filter(None, curves))))
    return steps, [float(np.mean(values[step])) for step in steps]


def _coordinates_drawer(comparison: Comparison, names: Sequence[str]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        rows, columns = comparison.rows, [*names, comparison.metric]
        means = np.array([row.mean for row in rows])
        span = np.ptp(means) or 1.0
        places = [_places(values) for values in zip(*(_settings(row, names) for row in rows), strict=True)]
        heights = np.array([*(place for place, _ in places), (means - means.min()) / span])
        for row in np.argsort(means):
            colour = colormaps["viridis"]((means[row] - means.min()) / span)
            axes.plot(range(len(columns)), heights[:, row], color=colour, alpha=0.8)
        for column, (_, ticks) in enumerate(places):
            for height, text in ticks:
                axes.annotate(
                    figure_text(text, max_letters=18), (column, height), (3, 2), textcoords="offset points", fontsize=7
                )
        for height in (0.0, 1.0):
            axes.annotate(f"{means.min() + height * np.ptp(means):.3f}", (len(columns) - 1, height), fontsize=7)
        names_shown = [figure_text(name.removeprefix(AXIS), max_letters=20) for name in columns]
        axes.set_xticks(range(len(columns)), names_shown, fontsize=8)
        axes.set_yticks([])
        axes.grid(axis="x", alpha=0.4)

    return draw


def _places(values: Sequence[str]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights in 0..1 of the values of one setting, numbers by size and others in order; and their labels."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        known = list(dict.fromkeys(values))
        numbers = np.array([known.index(value) for value in values], float)
    scaled = (numbers - numbers.min()) / (np.ptp(numbers) or 1.0)
    return scaled, sorted({(float(height), value) for height, value in zip(scaled, values, strict=True)})[:12]
