"""A confusion matrix becomes a picture: a row a class, in shares of its videos; right ones blue, wrong ones red.

Few classes have names, and counts in the cells. Some hundred have small names. More have their numbers alone, because
names would not fit. The most frequent confusions are listed next to the matrix.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from pipelines.runtime.fonts import figure_fonts, figure_text, text_width
from t3d_core.evaluation.class_report import ClassReport

_Font = dict[str, Any]
_DPI = 130
_MAX_COUNTED, _MAX_NAMED = 25, 130  # classes
_NUM_CONFUSIONS, _MAX_NAME = 30, 28
# All in inches.
_CELL, _MIN_SIDE, _MAX_SIDE, _MAX_SIDE_UNNAMED = 0.52, 3.5, 11.0, 13.0
_AROUND_MATRIX, _AROUND_TEXT = 2.6, 0.3
_INK = "#222222"
_TITLE: _Font = {"size": 11}
_HEADING: _Font = {"size": 9, "weight": "bold", "family": "DejaVu Sans"}  # other fonts may lack the weight
_LINE: _Font = {"size": 8}
_RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", "#6baed6", "#08306b"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#fc9272", "#99000d"])
_DARK = 0.5  # share of the class from which a cell is dark


def plot_confusion(report: ClassReport, names: Sequence[str], *, title: str) -> bytes:
    """Return a PNG of the matrix; a class without videos has an empty row.

    Args:
        report: the counts.
        names: of the classes.
        title: stands above.
    """
    with figure_fonts([*names, title]):
        figure = _drawn(report, _shown(names), title=figure_text(title))
        file = BytesIO()
        figure.savefig(file, format="png")
    return file.getvalue()


def _shown(names: Sequence[str]) -> list[str]:
    """The names as they are drawn; if two became equal because they are long, each begins with its number."""
    shown = [figure_text(name, max_letters=_MAX_NAME) for name in names]
    return shown if len({*shown}) == len(shown) else [f"{number}: {name}" for number, name in enumerate(shown)]


def _drawn(report: ClassReport, names: Sequence[str], *, title: str) -> Figure:
    num_classes = len(names)
    largest = _MAX_SIDE if num_classes <= _MAX_NAMED else _MAX_SIDE_UNNAMED
    side = float(np.clip(_CELL * num_classes, _MIN_SIDE, largest))
    heading, *lines = _confusion_lines(report, names)
    matrix_width = _AROUND_MATRIX + side
    listing_width = max([text_width(heading, **_HEADING), *(text_width(line, **_LINE) for line in lines)])
    width = max(matrix_width + listing_width, text_width(title, **_TITLE)) + _AROUND_TEXT
    figure = Figure(figsize=(width, _AROUND_MATRIX + side), dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(matrix_width, width - matrix_width), wspace=0)
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    matrix = left.add_subplot()
    figure.suptitle(title, x=0.01, ha="left", color=_INK, **_TITLE)
    _draw(left, matrix, report)
    _name_classes(matrix, report, names, points=0.8 * 72 * side / num_classes)
    place: dict[str, Any] = {"x": 0, "y": 0.97, "va": "top", "color": _INK}
    right.text(s=heading, **_HEADING, **place)
    right.text(s="\n".join(["", *lines]), linespacing=1.6, **_LINE, **place)
    return figure


def _draw(figure: SubFigure, matrix: Axes, report: ClassReport) -> None:
    share_KK = report.confusion_KK / np.maximum(report.num_examples_K, 1)[:, None]
    is_right_KK = np.eye(len(share_KK), dtype=bool)
    for what, hidden_KK, colours in (("wrong", is_right_KK, _WRONG), ("right", ~is_right_KK, _RIGHT)):
        shown = np.ma.masked_array(share_KK, hidden_KK)
        # By the square root, so that a few wrong ones among many can be seen.
        picture = matrix.imshow(shown, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        bar = figure.colorbar(picture, ax=matrix, fraction=0.03, pad=0.03, aspect=30, ticks=[0, 0.1, 0.3, 0.6, 1])
        bar.ax.set_title(what, fontsize=8)
        bar.set_label("share of the class" if what == "wrong" else "", fontsize=8)  # wrong: the outer one
        bar.ax.tick_params(labelsize=8)
    if len(share_KK) > _MAX_COUNTED:
        return
    for label, predicted in np.argwhere(report.confusion_KK):
        colour = "white" if share_KK[label, predicted] >= _DARK else _INK
        count = report.confusion_KK[label, predicted]
        matrix.text(predicted, label, f"{count}", ha="center", va="center", fontsize=9, color=colour)


def _name_classes(matrix: Axes, report: ClassReport, names: Sequence[str], *, points: float) -> None:
    matrix.set_xlabel("predicted class")
    if len(names) > _MAX_NAMED:
        matrix.set_ylabel("class, by its number in classes.csv")
        for axis in (matrix.xaxis, matrix.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        return
    matrix.set_ylabel("class (videos)")
    counted = [f"{name} ({count})" for name, count in zip(names, report.num_examples_K, strict=True)]
    size = min(9.0, points)
    matrix.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    matrix.set_yticks(range(len(names)), counted, fontsize=size)
    matrix.tick_params(length=2 if len(names) <= _MAX_COUNTED else 0)


def _confusion_lines(report: ClassReport, names: Sequence[str]) -> list[str]:
    """A heading and a line for each of the most frequent confusions."""
    shown = report.confusions()[:_NUM_CONFUSIONS]
    if not shown:
        return ["No confusions"]
    # The mark keeps the line in its order where the first name is written from right to left.
    lines = [f"\u200e{each.num_examples}  {names[each.label]}  as  {names[each.predicted]}" for each in shown]
    return ["Most frequent confusions", *lines]
