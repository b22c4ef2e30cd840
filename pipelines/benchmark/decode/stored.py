"""A source video becomes its segments in every encoding of shards, and the loss of each compared with the source."""

import io
from itertools import islice
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation

from t3d_core.video.container import VideoError
from t3d_core.video.conversion import rgb_view
from t3d_core.video.encodings import Encoding
from t3d_core.video.sizes import resized_size
from t3d_core.video.storage import EncodedSegment, encode_segments

_EXPLICIT: tuple[Encoding, ...] = ("copy", "h264", "jpeg")


class StoredClip(NamedTuple):
    """One segment per encoding, the choice of `auto`, and encodings that were refused: name -> reason."""

    segments: dict[str, EncodedSegment]
    auto: str
    refused: dict[str, str]


class Psnr(NamedTuple):
    """PSNR of brightness and of RGB, in dB over all frames; infinite without loss."""

    luma: float
    rgb: float


def store_clip(path: str, *, short_side: int) -> StoredClip:
    """Encode the whole video in every way.

    Raises:
        VideoError: `auto` cannot store it.
    """
    auto = next(iter(encode_segments(path, encoding="auto", short_side=short_side)))
    segments, refused = {auto.encoding: auto}, {}
    for encoding in _EXPLICIT:
        if encoding == auto.encoding:
            continue
        try:
            segments[encoding] = next(iter(encode_segments(path, encoding=encoding, short_side=short_side)))
        except VideoError as error:
            refused[f"stored as {encoding}"] = str(error)
    return StoredClip(segments, auto.encoding, refused)


def measure_psnr(path: str, segment: EncodedSegment, *, short_side: int) -> Psnr:
    """Compare all frames with the source's, both scaled (bicubic) to the size at which the segment is read."""
    size = (segment.height, segment.width)
    if min(size) > short_side:
        size = resized_size(*size, short_side=short_side)
    squares: list[tuple[float, float]] = []
    with av.open(path, "r") as source, av.open(io.BytesIO(segment.data), "r") as stored:
        expected = islice(source.decode(video=0), segment.start_frame, None)
        found = islice(stored.decode(video=0), segment.frame_offset, segment.frame_offset + segment.num_frames)
        for reference, frame in zip(expected, found, strict=False):
            pair = [_luma_and_rgb(picture, size) for picture in (reference, frame)]
            squares.append((_mean_square(pair[0][0], pair[1][0]), _mean_square(pair[0][1], pair[1][1])))
    assert len(squares) == segment.num_frames, "a segment without some of its frames"
    luma, rgb = np.mean(squares, axis=0)
    return Psnr(_decibels(luma), _decibels(rgb))


def _luma_and_rgb(frame: VideoFrame, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Brightness (H, W) and RGB (H, W, 3) of a frame at `size`, uint8."""
    height, width = size
    scaled = frame.reformat(
        width,
        height,
        "yuv420p",
        interpolation=Interpolation.BICUBIC,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )
    plane = scaled.planes[0]
    luma_HW = np.ndarray(size, np.uint8, memoryview(plane), strides=(plane.line_size, 1)).copy()
    return luma_HW, rgb_view(scaled.reformat(format="rgb24", threads=1)).copy()


def _mean_square(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.square(one.astype(np.float32) - other).mean())


def _decibels(mean_square: float) -> float:
    return float("inf") if mean_square == 0 else float(10 * np.log10(255**2 / mean_square))
