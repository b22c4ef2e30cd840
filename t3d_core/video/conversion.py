"""A decoded frame goes in, upright RGB pixels come out: scaled, turned, and cut to what is wanted (paper 4.4).

Scaling is the larger part of the work, so where only a square of the frame is wanted, the rest is removed
first; a few pixels of margin keep the filter from seeing the cut (except where pictures shrink to a quarter or less):

    source 320x240            region, scaled            crop
    +--------------+          +---------+
    |  +--------+  |          | +-----+ |               +-----+
    |  | region |  |   --->   | |crop | |      --->     |     |
    |  +--------+  |          | +-----+ |               +-----+
    +--------------+          +---------+

Shape letters: T frames, H height, W width, C = 3 colours.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from t3d_core.video.container import VideoError
from t3d_core.video.cropping import Crop, check_inside

_HALF_COLOUR_FORMATS = ("yuv420p", "yuvj420p")
_MARGIN_PIXELS, _SEARCHED_PIXELS = 4, 16
# FFmpeg's scaler turns these YUV matrices into RGB (numbers of ITU-T H.273, 8.3) and refuses all others: YCgCo, BT.2020
# with constant luminance, ICtCp, and what no standard knows.
_KNOWN_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
_UNSPECIFIED_MATRIX = 2


def displayed_size(height: int, width: int, *, rotation_degrees: int) -> tuple[int, int]:
    """(height, width) in pixels after a turn by `rotation_degrees`; the function is its own inverse."""
    return (width, height) if _quarter_turns(rotation_degrees) % 2 else (height, width)


def rotation_of(frame: VideoFrame) -> int:
    """Counter-clockwise turn in degrees that the file asks for.

    Mirroring (selfies) is left out, because the paper's random flips ignore left and right: a mirrored picture comes
    out upright and unmirrored.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return frame.rotation
    a, b, _, c, d = np.frombuffer(memoryview(matrix), np.int32)[:5].tolist()
    # The angle of what remains of a mirroring matrix once the source is flipped left to right.
    return frame.rotation if a * d >= b * c else round(-math.degrees(math.atan2(-b, -a)))


def upright(frame_HWC: npt.NDArray[np.uint8], *, rotation_degrees: int) -> npt.NDArray[np.uint8]:
    """Turn a frame counter-clockwise by a multiple of 90 degrees (a view); other angles are left as they are."""
    return np.rot90(frame_HWC, _quarter_turns(rotation_degrees))


def rgb_view(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """The pixels of an rgb24 frame as frame_HWC, without a copy (rows of the plane are padded)."""
    plane = frame.planes[0]
    return np.ndarray((frame.height, frame.width, 3), np.uint8, memoryview(plane), strides=(plane.line_size, 3, 1))


def is_matrix_known(frame: VideoFrame) -> bool:
    """Whether the scaler turns the colours that this frame notes into RGB."""
    return frame.colorspace in _KNOWN_MATRICES


def with_known_matrix(frame: VideoFrame) -> VideoFrame:
    """The frame; where it notes a matrix that the scaler refuses, the default one is noted instead, as in ffmpeg."""
    if not is_matrix_known(frame):
        frame.colorspace = _UNSPECIFIED_MATRIX
    return frame


def converted_once(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames as they come; the first of each size, format and colours is turned into RGB, as readers will do.

    Raises:
        VideoError: it cannot be.
    """
    known = set()
    for frame in frames:
        kind = (frame.format.name, frame.height, frame.width, frame.colorspace, frame.color_range)
        if kind not in known:
            known.add(kind)
            _try_convert(frame)
        yield frame


def _try_convert(frame: VideoFrame) -> None:
    size = frame.height, frame.width
    larger = displayed_size(frame.height + 2, frame.width + 2, rotation_degrees=rotation_of(frame))
    try:
        for wanted in (None, larger):  # as it is, and scaled
            FrameConverter(np.zeros(1, np.int64), size=wanted, crop=None).write(frame, 0, video_size=size)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"its pictures ({frame.format.name}) cannot be turned into RGB: {error}") from error


class FrameConverter:
    """Converts wanted frames to RGB into one array with one scaler a step; knows which rows each frame index fills.

    4:2:0 video that changes its size is scaled as YUV first and then turned into RGB: FFmpeg has fast code for either
    step and none for both in one (3 to 5 times slower). The two ways differ by 1 to 1.5 grey levels in the mean.

    Args:
        frame_indices: wanted frames; any order, repeats allowed.
        size: (height, width) in pixels to scale to, None for the video's own.
        crop: square to cut out of the upright frames at that size, None for all.
    """

    def __init__(
        self, frame_indices: npt.NDArray[np.int64], *, size: tuple[int, int] | None, crop: Crop | None
    ) -> None:
        self.rows_of_index: dict[int, list[int]] = defaultdict(list)
        for row, frame_index in enumerate(frame_indices.tolist()):
            self.rows_of_index[frame_index].append(row)
        self.last_index = max(self.rows_of_index)
        self._num_rows = len(frame_indices)
        self._size = size
        self._crop = crop
        self._region: _Region | None = None
        self._scaler = VideoReformatter()
        self._to_rgb = VideoReformatter()
        self.frames_THWC = np.empty((0, 0, 0, 3), np.uint8)

    def write(self, frame: VideoFrame, frame_index: int, *, video_size: tuple[int, int]) -> None:
        """Put one decoded frame into its rows; the first one fixes the clip's size and rotation.

        Args:
            frame: as the decoder gave it.
            frame_index: a wanted one.
            video_size: (height, width) of the video in pixels, before rotation.
        """
        if not len(self.frames_THWC):
            self._begin(frame, video_size)
        picture_HWC = self._convert(with_known_matrix(frame))
        for row in self.rows_of_index[frame_index]:
            self.frames_THWC[row] = picture_HWC

    def _begin(self, frame: VideoFrame, video_size: tuple[int, int]) -> None:
        self._rotation = rotation_of(frame)
        size = self._size or displayed_size(*video_size, rotation_degrees=self._rotation)
        crop = self._crop
        if crop is not None:
            check_inside(crop, *size)
        self._window = np.s_[:, :] if crop is None else _square(crop.top, crop.left, crop.size)
        self._scaled_size = displayed_size(*size, rotation_degrees=self._rotation)
        self.frames_THWC = np.empty((self._num_rows, *(size if crop is None else (crop.size, crop.size)), 3), np.uint8)

    def _convert(self, frame: VideoFrame) -> npt.NDArray[np.uint8]:
        """The wanted part of a frame as frame_HWC, a view."""
        size, window = self._scaled_size, self._window
        if frame.format.name in _HALF_COLOUR_FORMATS and (frame.height, frame.width) != size:
            if self._crop is not None and self._rotation == 0:
                if self._region is None or not self._region.fits(frame):
                    self._region = _Region(frame, scaled_size=size, crop=self._crop)
                frame, size, window = self._region.cut(frame), self._region.scaled_size, self._region.window
            frame = self._scaler.reformat(frame, size[1], size[0], "yuv422p", threads=1)
        rgb = self._to_rgb.reformat(frame, size[1], size[0], "rgb24", threads=1)
        return upright(rgb_view(rgb), rotation_degrees=self._rotation)[window]


class _Region:
    """What of a 4:2:0 frame is scaled to give a crop, as a frame of its own that is filled anew each time.

    Attributes:
        scaled_size: (height, width) to scale the region to.
        window: where the crop lies in it then.
    """

    def __init__(self, frame: VideoFrame, *, scaled_size: tuple[int, int], crop: Crop) -> None:
        self._source = (frame.format.name, frame.height, frame.width)
        rows = _span(crop.top, crop.size, source=frame.height, scaled=scaled_size[0])
        columns = _span(crop.left, crop.size, source=frame.width, scaled=scaled_size[1])
        self._rows, self._columns = rows, columns
        self.scaled_size = rows.scaled, columns.scaled
        self.window = _square(rows.offset, columns.offset, crop.size)
        self._region = VideoFrame(columns.stop - columns.first, rows.stop - rows.first, frame.format.name)
        self._region.colorspace, self._region.color_range = frame.colorspace, frame.color_range

    def fits(self, frame: VideoFrame) -> bool:
        """Whether the frame has the size and format that this region is of."""
        return self._source == (frame.format.name, frame.height, frame.width)

    def cut(self, frame: VideoFrame) -> VideoFrame:
        """The region of a frame; the next call overwrites it."""
        for number, (source, target) in enumerate(zip(frame.planes, self._region.planes, strict=True)):
            half = 2 if number else 1  # the colour planes have half the rows and columns
            top, left = self._rows.first // half, self._columns.first // half
            _pixels(target)[:] = _pixels(source)[top : top + target.height, left : left + target.width]
        return self._region


class _Span(NamedTuple):
    """Pixels [first, stop) of a source, how many they are scaled to, and where the wanted ones begin then."""

    first: int
    stop: int
    scaled: int
    offset: int


def _span(start: int, length: int, *, source: int, scaled: int) -> _Span:
    """What of `source` pixels to scale for [start, start + length) of the `scaled` ones.

    Its ends lie where both grids nearly meet, so that the crop stays in its place by a fraction of a pixel.
    """
    scale = source / scaled
    last_first = max(0, int(start * scale) - _MARGIN_PIXELS) // 2 * 2
    first_stop = min(source, math.ceil((start + length) * scale) + _MARGIN_PIXELS)
    firsts = range(last_first, max(-1, last_first - _SEARCHED_PIXELS), -2)  # even: the colour planes have half
    first = min(firsts, key=lambda pixel: _off_grid(pixel / scale))
    stops = range(first_stop, min(source, first_stop + _SEARCHED_PIXELS) + 1)
    stop = min(stops, key=lambda pixel: _off_grid((pixel - first) / scale))
    offset = start - round(first / scale)
    return _Span(first, stop, max(round((stop - first) / scale), offset + length), offset)


def _off_grid(place: float) -> float:
    return abs(place - round(place))


def _square(top: int, left: int, size: int) -> tuple[slice, slice]:
    return np.s_[top : top + size, left : left + size]


def _pixels(plane: VideoPlane) -> npt.NDArray[np.uint8]:
    return np.ndarray((plane.height, plane.width), np.uint8, memoryview(plane), strides=(plane.line_size, 1))


def _quarter_turns(rotation_degrees: int) -> int:
    return rotation_degrees // 90 % 4 if rotation_degrees % 90 == 0 else 0
