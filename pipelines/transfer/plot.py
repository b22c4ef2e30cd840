"""The curves of a transfer's checks become one picture: does it learn, how does it cheat, what do its features hold."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.runtime.fonts import figure_fonts, figure_text

_DPI = 110
_PANEL = (5.2, 4.2)  # inches
_TITLE_LETTERS = 33  # above each panel
_FEW_POINTS = 30  # shorter curves mark every point
_INK, _GRID = "#222222", "#dddddd"

Curves = Mapping[str, Sequence[tuple[int, float]]]


class _Line(NamedTuple):
    metric: str
    name: str
    colour: str
    style: str = "-"


class _Panel(NamedTuple):
    title: str
    lines: tuple[_Line, ...]
    is_share: bool = True


_PANELS = (
    _Panel(
        "Held-out pairs: accuracy (chance 0.5)",
        (
            _Line("check/pair_accuracy", "as they are, 95 % interval", "#08519c"),
            _Line("check/pair_accuracy_jittered", "other colours", "#e6550d", "--"),
            _Line("check/pair_accuracy_shuffled", "frames shuffled", "#31a354", "-."),
            _Line("train/pair_accuracy", "training", "#999999", ":"),
        ),
    ),
    _Panel(
        "Held-out keys: share that is less alike (chance 0.5)",
        (
            _Line("check/key_rank", "as they are, 95 % interval", "#08519c"),
            _Line("check/key_rank_jittered", "other colours", "#e6550d", "--"),
            _Line("check/key_rank_shuffled", "frames shuffled", "#31a354", "-."),
            _Line("check/key_own_time_share", "than another time's", "#756bb1", ":"),
        ),
    ),
    _Panel(
        "Judged a match: share",
        (
            _Line("check/match_share_own_time", "frames of its own time", "#08519c"),
            _Line("check/match_share_other_time", "another time of its video", "#e6550d", "--"),
        ),
    ),
    _Panel(
        "Frozen features on labelled videos: top-1",
        (
            _Line("probe/linear_top1", "linear, 95 % interval", "#08519c"),
            _Line("probe/linear_top1_own_statistics", "linear, own batch norms (transductive)", "#6baed6"),
            _Line("probe/knn_top1", "neighbours", "#e6550d", "--"),
            _Line("probe/knn_top1_own_statistics", "neighbours, own batch norms (transductive)", "#fdae6b", "--"),
        ),
    ),
    _Panel(
        "Features of held-out clips: effective rank",
        (_Line("check/effective_rank", "effective rank", "#08519c"),),
        is_share=False,
    ),
)


def plot_checks(curves: Curves, *, title: str) -> bytes:
    """Return a PNG of all measured curves; panels without a curve are left out.

    Args:
        curves: name -> (step, value), as `read_curves` returns them, at least those of `check/`.
        title: text above the panels.
    """
    panels = [panel for panel in _PANELS if any(line.metric in curves for line in panel.lines)]
    width, height = _PANEL
    with figure_fonts([title]):
        figure = Figure(figsize=(width * len(panels), height), layout="constrained")
        max_letters = _TITLE_LETTERS * len(panels)
        figure.suptitle(figure_text(title, max_letters=max_letters), x=0.01, ha="left", fontsize=11, color=_INK)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel, curves)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _draw(axes: Axes, panel: _Panel, curves: Curves) -> None:
    there = [line for line in panel.lines if line.metric in curves]
    for line in there:
        steps, values = zip(*curves[line.metric], strict=True)
        marker = "o" if len(steps) < _FEW_POINTS else None
        axes.plot(steps, values, line.style, color=line.colour, label=line.name, marker=marker, markersize=3)
        if line is panel.lines[0] and f"{line.metric}_low" in curves:
            (steps, low), (_, high) = (zip(*curves[f"{line.metric}_{end}"], strict=True) for end in ("low", "high"))
            axes.fill_between(steps, low, high, color=line.colour, alpha=0.15, linewidth=0)
    axes.set_title(panel.title, fontsize=10, color=_INK, loc="left")
    axes.set_xlabel("step", fontsize=9, color=_INK)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.set_ylim(0, 1 if panel.is_share else None)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(there) > 1:
        axes.legend(fontsize=8, frameon=False, labelcolor=_INK, loc="best")
