"""A confusion matrix becomes a picture: a row a class, in shares of its videos; right ones blue, wrong ones red.

With few classes the picture has names, and counts in the cells. With about a hundred it has small names. With more it
has only numbers, because names would not fit. The most frequent confusions are listed next to the matrix.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from t3d_core.evaluation.class_report import ClassReport

_DPI = 130
_MAX_COUNTED, _MAX_NAMED = 25, 130  # classes
_NUM_CONFUSIONS, _MAX_NAME = 30, 28
# All in inches.
_CELL, _MIN_SIDE, _MAX_SIDE, _MAX_SIDE_UNNAMED = 0.52, 3.5, 11.0, 13.0
_LETTER, _MIN_LISTING, _AROUND_MATRIX = 0.08, 2.2, 2.6
_INK = "#222222"
_RIGHT = LinearSegmentedColormap.from_list("right", ["#ffffff", "#6baed6", "#08306b"])
_WRONG = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#fc9272", "#99000d"])
_DARK = 0.5  # cells with at least this share of the class are dark


def plot_confusion(report: ClassReport, names: Sequence[str], *, title: str) -> bytes:
    """Return a PNG of the matrix; a class without videos has an empty row.

    Args:
        report: the counts.
        names: of the classes.
        title: text above the matrix.
    """
    num_classes = len(names)
    largest = _MAX_SIDE if num_classes <= _MAX_NAMED else _MAX_SIDE_UNNAMED
    side = float(np.clip(_CELL * num_classes, _MIN_SIDE, largest))
    lines = _confusion_lines(report, names)
    listing_width = max(_MIN_LISTING, _LETTER * max(map(len, lines)))
    figure = Figure(figsize=(_AROUND_MATRIX + side + listing_width, _AROUND_MATRIX + side), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(_AROUND_MATRIX + side, listing_width))
    matrix, listing = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
    _draw(figure, matrix, report)
    _name_classes(matrix, report, names, points=0.8 * 72 * side / num_classes)
    listing.set_axis_off()
    listing.text(0, 1, lines[0], va="top", fontsize=9, weight="bold", color=_INK)
    listing.text(0, 1, "\n".join(["", *lines[1:]]), va="top", fontsize=8, linespacing=1.6, color=_INK)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _draw(figure: Figure, matrix: Axes, report: ClassReport) -> None:
    share_KK = report.confusion_KK / np.maximum(report.num_examples_K, 1)[:, None]
    is_right_KK = np.eye(len(share_KK), dtype=bool)
    for what, hidden_KK, colours in (("wrong", is_right_KK, _WRONG), ("right", ~is_right_KK, _RIGHT)):
        shown = np.ma.masked_array(share_KK, hidden_KK)
        # The square root makes a few wrong videos among many visible.
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
    counted = [f"{_short(name)} ({count})" for name, count in zip(names, report.num_examples_K, strict=True)]
    size = min(9.0, points)
    matrix.set_xticks(range(len(names)), [_short(name) for name in names], rotation=90, fontsize=size)
    matrix.set_yticks(range(len(names)), counted, fontsize=size)
    matrix.tick_params(length=2 if len(names) <= _MAX_COUNTED else 0)


def _confusion_lines(report: ClassReport, names: Sequence[str]) -> list[str]:
    """A heading and a line for each of the most frequent confusions."""
    shown = report.confusions()[:_NUM_CONFUSIONS]
    if not shown:
        return ["No confusions"]
    lines = [f"{each.num_examples}  {_short(names[each.label])}  as  {_short(names[each.predicted])}" for each in shown]
    return ["Most frequent confusions", *lines]


def _short(name: str) -> str:
    shortened = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
    return shortened.replace("$", r"\$")  # a plain $ would start a formula
