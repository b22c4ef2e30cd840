"""A source video goes in, all its frames come out one by one, upright, with the moment at which each is shown."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.video.container import VideoError, VideoSource
from t3d_core.video.conversion import FrameConverter
from t3d_core.video.listed_source import list_source
from t3d_core.video.segment_ranges import SegmentRequest
from t3d_core.video.source_frames import SourceReader

_MAX_SHOWN_SECONDS = 3600


class TimedFrame(NamedTuple):
    """A frame.

    Attributes:
        frame_HWC: uint8 RGB; all frames of a video have the size of the first.
        seconds: when it is shown, on the clock of the file.
        fps: average frames a second of the video.
    """

    frame_HWC: npt.NDArray[np.uint8]
    seconds: float
    fps: float


def read_frames(source: VideoSource) -> Iterator[TimedFrame]:
    """Read every frame of a video, in order of time.

    Args:
        source: path, or the bytes of an encoded file.

    Raises:
        VideoError: the file cannot be read or decoded; frames before the damage have been given.
    """
    listed = list_source(source, SegmentRequest())
    fps = listed.rate_of((0, None))
    with SourceReader(source, listed.table) as reader:
        converter = FrameConverter(np.zeros(1, np.int64), size=None, crop=None)
        for item in reader.frames(0, None):
            converter.write(item.frame, 0, video_size=(item.frame.height, item.frame.width))
            seconds = item.frame_index / fps if listed.seconds is None else listed.seconds[item.frame_index]
            yield TimedFrame(converter.frames_THWC[0].copy(), float(seconds), float(fps))


def at_constant_rate(frames: Iterator[TimedFrame]) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames of the average rate from uneven ones: at each moment the frame that is shown then.

    shown     a       b c                 d
    given     a   a   c   c   c   c   c   d

    Raises:
        VideoError: a frame is shown for more than an hour, as where the clock of a file jumps.
    """
    shown: TimedFrame | None = None
    start, num_given = 0.0, 0
    for frame in frames:
        if shown is None:
            start = frame.seconds
        elif frame.seconds - shown.seconds > _MAX_SHOWN_SECONDS:
            raise VideoError(f"its clock jumps from {shown.seconds:.0f} to {frame.seconds:.0f} s")
        # The frame before is shown until this one comes; half a frame is forgiven for the rounding of times.
        while shown is not None and start + (num_given + 0.5) / frame.fps <= frame.seconds:
            yield shown.frame_HWC
            num_given += 1
        shown = frame
    if shown is not None:
        yield shown.frame_HWC
