"""Frames and the map of an explanation become a heat map over the frames, and a sheet that a person reads at a glance.

    title
    [frame 0] [frame 4] ...                the frames
    [frame 0] [frame 4] ...                the same under the map
    1st temporal layer   [1 frame |  3 frames  | 6 frames]
    2nd temporal layer   [1 frame    | 3 frames | 4 frames]

frames_THWC is uint8 RGB, map_THW float in [0, 1] of the same frames and pixels.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.runtime.files import whole_file
from pipelines.runtime.fonts import figure_fonts, figure_text, text_width

_HEAT = colormaps["turbo"]
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# Frames become grey between these values: the heat is the only colour, and it stands out from bright and from dark.
_DARKEST, _BRIGHTEST = 30.0, 190.0
_STRONGEST_HEAT = 0.8

_MAX_FRAMES = 8
_MAX_TITLE = 110
_BRANCH_COLOURS = ("#9ecae1", "#4292c6", "#08519c", "#08306b")
_DARK_COLOURS = ("#08519c", "#08306b")

# All in inches.
_DPI = 110
_CELL_AREA, _MIN_CELL, _MAX_CELL = 1.8, 0.7, 2.6
_GAP, _MARGIN, _TITLE_HEIGHT, _CAPTION_HEIGHT = 0.06, 0.2, 0.4, 0.18
_BAR_HEIGHT, _BAR_PITCH, _BAR_LABEL_WIDTH, _BAR_WIDTH = 0.26, 0.36, 1.45, 5.0
_BARS_HEADING = 0.4
_MIN_WIDTH = _BAR_LABEL_WIDTH + _BAR_WIDTH + 2 * _MARGIN

Shares = Sequence[tuple[int, float]]
"""(temporal depth in frames, share in [0, 1]) of each branch of one temporal transition layer."""


def overlay_frames(frames_THWC: npt.NDArray[np.uint8], map_THW: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return the frames in grey, with the map over them in colours: blue is little, red the maximum, none is zero.

    Opacity grows with the square root of the map, so that weak parts are seen too.
    """
    assert frames_THWC.shape[:3] == map_THW.shape, f"frames {frames_THWC.shape} and map {map_THW.shape} must fit"
    overlaid = np.empty_like(frames_THWC)
    for index, (frame_HWC, map_HW) in enumerate(zip(frames_THWC, map_THW, strict=True)):
        overlaid[index] = _overlay(frame_HWC, np.sqrt(np.clip(map_HW, 0, 1)))
    return overlaid


def draw_explanation_sheet(
    frames_THWC: npt.NDArray[np.uint8],
    map_THW: npt.NDArray[np.floating],
    branch_shares: Sequence[Shares],
    *,
    title: str,
    path: Path,
) -> None:
    """Draw up to eight frames evenly over a clip, plain and under the map, and the shares of each temporal layer.

    Args:
        frames_THWC: The clip's frames as a person sees them, one or more.
        map_THW: Their map.
        branch_shares: One entry a temporal transition layer; shares that are NaN are stated in words. Empty: no bars.
        title: Such as the video, the class and its score.
        path: The PNG file; complete or absent.
    """
    shown = np.unique(np.linspace(0, len(frames_THWC) - 1, _MAX_FRAMES).round().astype(int))
    frames = frames_THWC[shown]
    title = figure_text(title, max_letters=_MAX_TITLE)
    with figure_fonts([title]), whole_file(path) as partial:
        _sheet(frames, overlay_frames(frames, map_THW[shown]), shown.tolist(), branch_shares, title).savefig(
            partial, format="png"
        )


def _overlay(frame_HWC: npt.NDArray[np.uint8], heat_HW: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    grey_HW = _DARKEST + (_BRIGHTEST - _DARKEST) / 255 * (frame_HWC @ _LUMINANCE)
    colour_HWC = _HEAT(heat_HW)[..., :3] * 255
    opacity_HW1 = _STRONGEST_HEAT * heat_HW[..., None]
    return ((1 - opacity_HW1) * grey_HW[..., None] + opacity_HW1 * colour_HWC).round().astype(np.uint8)


def _sheet(
    frames: npt.NDArray[np.uint8],
    overlaid: npt.NDArray[np.uint8],
    numbers: Sequence[int],
    branch_shares: Sequence[Shares],
    title: str,
) -> Figure:
    cell_width, cell_height = _cell(frames.shape[2] / frames.shape[1])
    row = len(frames) * (cell_width + _GAP)
    title_width = 1.05 * text_width(title, size=12) if title else 0.0
    width = max(row, _MIN_WIDTH - 2 * _MARGIN, title_width) + 2 * _MARGIN
    bars_height = _BARS_HEADING + len(branch_shares) * _BAR_PITCH if branch_shares else 0
    height = _TITLE_HEIGHT + _CAPTION_HEIGHT + 2 * (cell_height + _GAP) + bars_height + _MARGIN
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(_MARGIN / width, 1 - 0.28 / height, title, size=12)
    for line, pictures in enumerate((frames, overlaid)):
        bottom = height - _TITLE_HEIGHT - _CAPTION_HEIGHT - (line + 1) * (cell_height + _GAP)
        for column, picture in enumerate(pictures):
            left = _MARGIN + column * (cell_width + _GAP)
            axes = figure.add_axes((left / width, bottom / height, cell_width / width, cell_height / height))
            axes.imshow(picture, interpolation="antialiased")
            axes.set_axis_off()
            if line == 0:
                axes.set_title(f"frame {numbers[column]}", size=8, pad=3)
    _draw_bars(figure, branch_shares, top=bars_height + _MARGIN)
    return figure


def _cell(aspect: float) -> tuple[float, float]:
    """Width and height of a frame on the sheet: of equal area for every aspect, except for extreme ones."""
    width = min(max(math.sqrt(_CELL_AREA * aspect), _MIN_CELL), _MAX_CELL)
    return width, min(max(width / aspect, _MIN_CELL), _MAX_CELL)


def _draw_bars(figure: Figure, branch_shares: Sequence[Shares], *, top: float) -> None:
    """Draw one bar a layer below `top` inches from the figure's lower edge."""
    width, height = figure.get_size_inches()
    if branch_shares:
        figure.text(_MARGIN / width, (top - 0.28) / height, "share of each temporal depth in the decision", size=9)
    for index, shares in enumerate(branch_shares):
        bottom = top - _BARS_HEADING - index * _BAR_PITCH - _BAR_HEIGHT
        label_left, middle = _MARGIN / width, (bottom + _BAR_HEIGHT / 2) / height
        figure.text(label_left, middle, f"temporal layer {index + 1}", size=9, va="center")
        left = _MARGIN + _BAR_LABEL_WIDTH
        size = (left / width, bottom / height, _BAR_WIDTH / width, _BAR_HEIGHT / height)
        _draw_bar(figure.add_axes(size), shares)


def _draw_bar(axes: Axes, shares: Shares) -> None:
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[])
    if any(math.isnan(share) for _, share in shares):
        axes.text(0.5, 0, "no depth contributes", ha="center", va="center", size=8)
        return
    left = 0.0
    for place, (depth, share) in enumerate(shares):
        colour = _BRANCH_COLOURS[min(place, len(_BRANCH_COLOURS) - 1)]
        axes.barh(0, share, left=left, height=1, color=colour, edgecolor="white")
        label = _label(depth, share)
        if label:
            ink = "white" if colour in _DARK_COLOURS else "black"
            axes.text(left + share / 2, 0, label, ha="center", va="center", size=8, color=ink)
        left += share


def _label(depth: int, share: float) -> str:
    """The longest label that fits into the part of a bar; none in a part of almost nothing."""
    frames = "1 frame" if depth == 1 else f"{depth} frames"
    for label in (f"{frames} {share:.0%}", frames, str(depth)):
        if text_width(label, size=8) + 0.08 < share * _BAR_WIDTH:
            return label
    return ""
