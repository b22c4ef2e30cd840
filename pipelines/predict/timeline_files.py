"""A timeline becomes a CSV file and a picture.

    scores   the smoothed score of each class that is on top for long, in its colour; grey: the highest other class
    band     the segments, each in the colour of its class

A line has at most some hundred points: in a long video each one is the mean of several clips, and the axis says so.
"""

import csv
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MultipleLocator

from pipelines.predict.class_colours import OTHER_COLOUR, class_colours
from pipelines.runtime.files import whole_file
from pipelines.runtime.fonts import figure_fonts, figure_text
from t3d_core.prediction.timeline import Segment, Timeline, format_seconds

COLUMNS = ("seconds", "start_seconds", "end_seconds", "class", "score", "smoothed")
_NUM_ROWS_PER_CLIP = 5

_DPI, _WIDTH, _HEIGHT = 120, 11.0, 3.9  # the last two in inches
_MAX_POINTS = 600  # of a line
_MAX_NAME, _MAX_TITLE = 28, 90  # letters
_INK = "#222222"
_MAX_TICKS = 12
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


def write_timeline_csv(path: Path, timeline: Timeline, class_names: Sequence[str]) -> None:
    """Write one row for each clip and each of its five classes with the highest smoothed scores, the highest first.

    The first row of a clip so names the class of its segment. `seconds` is the middle of the clip.

    Args:
        path: the CSV file, in UTF-8; complete or absent.
        timeline: what is written.
        class_names: by label.
    """
    top_NR = np.argsort(-timeline.smoothed_NK, axis=1, kind="stable")[:, :_NUM_ROWS_PER_CLIP]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for clip, top_R in enumerate(top_NR):
            moments = (timeline.centre_seconds_N, timeline.start_seconds_N, timeline.end_seconds_N)
            times = [f"{seconds_N[clip]:.3f}" for seconds_N in moments]
            for label in top_R:
                values = (each_NK[clip, label] for each_NK in (timeline.score_NK, timeline.smoothed_NK))
                writer.writerow([*times, class_names[label], *(f"{value:.6f}" for value in values)])


def plot_timeline(
    timeline: Timeline, class_names: Sequence[str], title: str, *, min_segment_seconds: float = 0.0
) -> bytes:
    """Return a PNG of the smoothed scores and the segments over time.

    Args:
        timeline: what is drawn.
        class_names: by label.
        title: stands above.
        min_segment_seconds: `min_seconds` of the segments.
    """
    segments = timeline.segments(min_seconds=min_segment_seconds)
    colours = class_colours(segments)
    with figure_fonts([title, *(class_names[label] for label in colours)]):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
        scores, band = figure.subplots(2, 1, sharex=True, height_ratios=(12, 1))
        figure.suptitle(figure_text(title, max_letters=_MAX_TITLE), x=0.01, ha="left", size=11, color=_INK)
        lines = _draw_scores(scores, timeline, colours)
        _draw_band(band, segments, colours)
        _draw_time(scores, band, timeline)
        # Handed over, because matplotlib leaves out what is labelled `_...`.
        names = [figure_text(class_names[label], max_letters=_MAX_NAME) for label in colours]
        names += ["highest other class"] * (len(lines) - len(names))
        figure.legend(lines, names, loc="outside right center", frameon=False, fontsize=9)
        file = BytesIO()
        figure.savefig(file, format="png")
    return file.getvalue()


def _draw_scores(axes: Axes, timeline: Timeline, colours: dict[int, str]) -> list[Line2D]:
    """The lines of the coloured classes, then that of the others if there are any."""
    is_other_K = np.ones(timeline.smoothed_NK.shape[1], bool)
    is_other_K[list(colours)] = False
    curves = _curves(timeline, list(colours), is_other_K)
    lines = []
    for place, (score_P, colour) in enumerate(zip(curves.score_CP, colours.values(), strict=True)):
        lines += axes.plot(curves.seconds_P, score_P, color=colour, linewidth=1.6, zorder=3 - place / len(colours))
    if is_other_K.any():
        lines += axes.plot(curves.seconds_P, curves.other_P, color=OTHER_COLOUR, linewidth=1, zorder=2)
    axes.set_ylim(0, 1.02)
    of = f",\nmeans of {curves.point_seconds:.3g} s" if curves.point_seconds else ""
    axes.set_ylabel(f"smoothed score{of}", fontsize=9)
    axes.grid(alpha=0.3)
    return lines


class _Curves(NamedTuple):
    """Points of the lines, with NaN where a gap is: P points, C coloured classes."""

    seconds_P: npt.NDArray[np.float64]
    score_CP: npt.NDArray[np.float64]
    other_P: npt.NDArray[np.float64]
    point_seconds: float  # each point is the mean over so long; 0: each point is a clip


def _curves(timeline: Timeline, labels: list[int], is_other_K: npt.NDArray[np.bool_]) -> _Curves:
    score_NC = timeline.smoothed_NK[:, labels]
    other_N1 = timeline.smoothed_NK[:, is_other_K].max(axis=1, initial=0, keepdims=True)
    value_NV = np.concatenate([timeline.centre_seconds_N[:, None], score_NC, other_N1], axis=1)
    point_seconds = 0.0
    is_first_N = np.ones(len(value_NV), bool)
    if len(value_NV) > _MAX_POINTS:
        point_seconds = float(timeline.end_seconds_N[-1] - timeline.start_seconds_N[0]) / _MAX_POINTS
        place_N = ((timeline.centre_seconds_N - timeline.start_seconds_N[0]) // point_seconds).astype(np.int64)
        is_first_N[1:] = (place_N[1:] != place_N[:-1]) | timeline.is_after_gap_N[1:]
    first_P = np.flatnonzero(is_first_N)
    num_clips_P = np.diff([*first_P, len(value_NV)])
    value_PV = np.add.reduceat(value_NV, first_P, axis=0) / num_clips_P[:, None]
    lines = np.concatenate(list(_lines(timeline, value_PV, first_P)))
    return _Curves(lines[:, 0], lines[:, 1:-1].T, lines[:, -1], point_seconds)


def _lines(
    timeline: Timeline, value_PV: npt.NDArray[np.float64], first_P: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.float64]]:
    """The points between two gaps, level from the begin of the first clip and to the end of the last one, then NaN."""
    is_after_gap_P = timeline.is_after_gap_N[first_P]
    last_P = np.append(first_P[1:], len(timeline.score_NK)) - 1
    for line, at_P in zip(
        np.split(value_PV, np.flatnonzero(is_after_gap_P)[1:]),
        np.split(np.arange(len(first_P)), np.flatnonzero(is_after_gap_P)[1:]),
        strict=True,
    ):
        begin, end = line[:1].copy(), line[-1:].copy()
        begin[0, 0] = timeline.start_seconds_N[first_P[at_P[0]]]
        end[0, 0] = timeline.end_seconds_N[last_P[at_P[-1]]]
        yield from (begin, line, end, np.full_like(end, np.nan))


def _draw_band(axes: Axes, segments: Sequence[Segment], colours: dict[int, str]) -> None:
    ranges = [(each.start_seconds, each.end_seconds - each.start_seconds) for each in segments]
    faces = [colours.get(each.label, OTHER_COLOUR) for each in segments]
    axes.broken_barh(ranges, (0, 1), facecolors=faces, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("segments", fontsize=9, rotation=0, ha="right", va="center")


def _draw_time(scores: Axes, band: Axes, timeline: Timeline) -> None:
    start, end = float(timeline.start_seconds_N[0]), float(timeline.end_seconds_N[-1])
    band.set_xlim(start, end)
    fitting = (each for each in _TICK_SECONDS if (end - start) / each <= _MAX_TICKS)
    band.xaxis.set_major_locator(MultipleLocator(next(fitting, (end - start) / _MAX_TICKS // 3600 * 3600 + 3600)))
    band.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: format_seconds(seconds)))
    scores.tick_params(labelbottom=False)
    for axes in (scores, band):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
