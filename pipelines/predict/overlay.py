"""A frame of a video gets its label, score and timeline drawn in.

    +----------------------+
    | [jumping      0.83]  |   label box: class of the moment's segment, its smoothed score in the moment's clip
    | [#########----    ]  |
    |                      |
    | ====|=====---==      |   strip: all segments in the colours of their classes, and a cursor
    +----------------------+

Sizes follow the frame's, and texts are white on a dark veil, so that they can be read on any picture. Everything
that stays is drawn once: a frame costs two blended patches and a cursor.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from pipelines.predict.class_colours import OTHER_COLOUR, class_colours
from pipelines.runtime.drawn_text import Colour, fitted_text, text_length, write_text
from pipelines.runtime.fonts import find_fonts, legible
from t3d_core.prediction.timeline import Timeline

_VEIL = (12, 12, 12, 192)  # the last is its opacity of 255: white letters keep a contrast of 9 on a white picture
_INK, _FAINT, _TRACK = (255, 255, 255), (205, 205, 205), (110, 110, 110)
_NO_SCORE = "no score"  # in a gap of the clips
_CACHED_BOXES = 32


@dataclass(frozen=True)
class Layout:
    """Where the parts lie, in pixels of the frame.

    Attributes:
        text_size: of label and score.
        margin: between the edge of the frame and the label box.
        padding: between the edge of the box and its text.
        bar_height: of the score's bar.
        strip_height: of the timeline's band.
    """

    height: int
    width: int
    text_size: int
    margin: int
    padding: int
    bar_height: int
    strip_height: int

    @property
    def box_height(self) -> int:
        """Padding, a line of text, the bar, padding."""
        return min(self.height, 2 * self.padding + round(1.45 * self.text_size) + self.bar_height)

    @property
    def max_box_width(self) -> int:
        """All that a narrow frame has, but not more than a line of 45 letters or so."""
        return max(1, min(self.width - 2 * self.margin, 24 * self.text_size))

    @property
    def panel_height(self) -> int:
        """The band with its veil above and below."""
        return min(self.height, 2 * self.strip_height)


def layout_of(height: int, width: int) -> Layout:
    """Choose the sizes for a frame: text is a thirtieth of its mean side, and at least 12 pixels where that fits."""
    smallest = max(1, min(12, height // 8, width // 10))
    text_size = max(smallest, round((height * width) ** 0.5 / 32))
    thin = max(1, round(text_size * 0.22))
    return Layout(
        height=height,
        width=width,
        text_size=text_size,
        margin=max(1, text_size // 2),
        padding=max(1, round(text_size * 0.4)),
        bar_height=max(min(3, text_size), thin),
        strip_height=max(min(6, text_size), round(text_size * 0.5)),
    )


class Overlay:
    """Draws into the frames of one video.

    Args:
        timeline: of the video.
        class_names: by label.
        size: (height, width) of the frames, in pixels.
        start_seconds: moment of the first frame; the strip begins no later than there.
        min_segment_seconds: `min_seconds` of the segments.
    """

    def __init__(
        self,
        timeline: Timeline,
        class_names: Sequence[str],
        *,
        size: tuple[int, int],
        start_seconds: float = 0.0,
        min_segment_seconds: float = 0.0,
    ) -> None:
        self.layout = layout_of(*size)
        self._timeline, self._spans = timeline, timeline.spans()
        self._segments = timeline.segments(min_seconds=min_segment_seconds)
        self._segment_starts = np.array([each.start_seconds for each in self._segments])
        self._segment_ends = np.array([each.end_seconds for each in self._segments])
        self._strip_seconds = min(start_seconds, self._segment_starts[0]), float(self._segment_ends[-1])
        self._colours = {label: _rgb(colour) for label, colour in class_colours(self._segments).items()}
        self._names, self._box_width = self._fitted_names(class_names)
        self._strip = self._drawn_strip()
        self._box = functools.lru_cache(maxsize=_CACHED_BOXES)(self._drawn_box)

    def draw(self, frame_HWC: npt.NDArray[np.uint8], seconds: float) -> npt.NDArray[np.uint8]:
        """Return a copy of the frame, RGB, with the overlay of this moment."""
        drawn_HWC = frame_HWC.copy()
        label, score = self.shown_at(seconds)
        self._box(label, round(100 * score)).blend_into(drawn_HWC)
        self._strip.blend_into(drawn_HWC)
        self._draw_cursor(drawn_HWC, seconds)
        return drawn_HWC

    def shown_at(self, seconds: float) -> tuple[int | None, float]:
        """The class of the segment at this moment and its smoothed score in the clip; (None, 0) in a gap."""
        clip = self._spans.clip_at(seconds)
        if clip is None:
            return None, 0.0
        label = self._segments[int(np.searchsorted(self._segment_starts, seconds, side="right")) - 1].label
        return label, float(self._timeline.smoothed_NK[clip, label])

    def _fitted_names(self, class_names: Sequence[str]) -> tuple[dict[int | None, str], int]:
        """The texts as they are shown, and the width of the box: it stays, and fits the longest of them."""
        layout = self.layout
        labels = {each.label for each in self._segments}
        find_fonts(class_names[label] for label in labels)
        names: dict[int | None, str] = {label: legible(class_names[label]) for label in sorted(labels)}
        names[None] = _NO_SCORE
        around = 2 * layout.padding + layout.text_size + text_length("0.00", layout.text_size)
        room = layout.max_box_width - around
        fitted = {label: fitted_text(name, layout.text_size, room) for label, name in names.items()}
        widest = max(text_length(name, layout.text_size) for name in fitted.values())
        return fitted, min(layout.max_box_width, round(widest + around))

    def _drawn_box(self, label: int | None, hundredths: int) -> "_Patch":
        layout, width = self.layout, self._box_width
        picture = Image.new("RGBA", (width, layout.box_height), _VEIL)
        draw = ImageDraw.Draw(picture)
        left, right, baseline = layout.padding, width - layout.padding, layout.padding + layout.text_size
        ink = _FAINT if label is None else _INK
        write_text(draw, self._names[label], layout.text_size, left=left, baseline=baseline, colour=ink)
        top = layout.box_height - layout.padding - layout.bar_height
        _fill(draw, left, right, top, layout.bar_height, _TRACK)
        if label is not None:
            score = f"{hundredths / 100:.2f}"
            score_left = right - text_length(score, layout.text_size)
            write_text(draw, score, layout.text_size, left=score_left, baseline=baseline, colour=_INK)
            filled = left + round((right - left) * hundredths / 100)
            _fill(draw, left, filled, top, layout.bar_height, self._colours.get(label, _rgb(OTHER_COLOUR)))
        return _Patch(picture, top=layout.margin, left=layout.margin)

    def _drawn_strip(self) -> "_Patch":
        layout = self.layout
        picture = np.full((layout.panel_height, layout.width, 4), _VEIL, np.uint8)
        first, last = self._strip_seconds
        seconds_W = first + (np.arange(layout.width) + 0.5) / layout.width * (last - first)
        segment_W = np.searchsorted(self._segment_starts, seconds_W, side="right") - 1
        is_covered_W = (segment_W >= 0) & (seconds_W < self._segment_ends[segment_W])
        colour_S = np.array([(*self._colours.get(each.label, _rgb(OTHER_COLOUR)), 255) for each in self._segments])
        top = (layout.panel_height - layout.strip_height) // 2
        picture[top : top + layout.strip_height, is_covered_W] = colour_S[segment_W[is_covered_W]]
        return _Patch(Image.fromarray(picture), top=layout.height - layout.panel_height, left=0)

    def _draw_cursor(self, frame_HWC: npt.NDArray[np.uint8], seconds: float) -> None:
        """A white line with a black edge, over the whole height of the panel."""
        layout = self.layout
        first, last = self._strip_seconds
        place = min(max((seconds - first) / (last - first), 0.0), 1.0)
        half, edge = max(1, layout.text_size // 14), max(1, layout.text_size // 20)
        centre = min(max(round(place * layout.width), half + edge), layout.width - half - edge)
        for colour, reach in ((0, half + edge), (255, half)):
            frame_HWC[layout.height - layout.panel_height : layout.height, max(0, centre - reach) : centre + reach] = (
                colour
            )


class _Patch(NamedTuple):
    """A picture with opacity, RGBA, and the place of its top left corner."""

    picture: Image.Image
    top: int
    left: int

    def blend_into(self, frame_HWC: npt.NDArray[np.uint8]) -> None:
        """Lay it over the frame, where both are."""
        width, height = self.picture.size
        region_HWC = frame_HWC[self.top : self.top + height, self.left : self.left + width]
        if region_HWC.size:
            below = Image.fromarray(region_HWC)
            below.paste(self.picture, (0, 0), self.picture)
            region_HWC[:] = np.asarray(below)


def _fill(draw: ImageDraw.ImageDraw, left: int, right: int, top: int, height: int, colour: Colour) -> None:
    """A rectangle, half-open; nothing where it is empty."""
    if left < right:
        draw.rectangle((left, top, right - 1, top + height - 1), fill=colour)


def _rgb(colour: str) -> Colour:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue
