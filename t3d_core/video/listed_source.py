"""A source file goes in, what its packets tell of all of it comes out: its rate, and when its frames are shown."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from t3d_core.video.container import VideoError, VideoSource
from t3d_core.video.conversion import is_matrix_known
from t3d_core.video.decoding import NO_FRAME_RATE, ZERO_FRAMES
from t3d_core.video.frame_rate import agrees, believed_rate
from t3d_core.video.segment_ranges import FrameRange, SegmentRequest
from t3d_core.video.source_frames import PacketTable, decoded_seconds, list_packets


class ListedSource(NamedTuple):
    """A source and what is known about all of it.

    Attributes:
        source: path, or the bytes of an encoded file.
        table: its packets.
        seconds: when each frame is shown on the clock of the file; None where only decoding would show it and nothing
            needs it.
        fps: its average frames a second, by the time stamps where the header disagrees with them.
    """

    source: VideoSource
    table: PacketTable
    seconds: npt.NDArray[np.float64] | None
    fps: Fraction

    def rate_of(self, frames: FrameRange) -> Fraction:
        """Frames a second of a range: the source's average, unless the times of its own frames disagree with it."""
        if self.seconds is None or not self.table.has_times:
            return self.fps
        first, stop = frames
        return believed_rate(self.fps, self.seconds[first:stop]) or self.fps

    def notes_of(self, frame: VideoFrame, *, fps: Fraction) -> tuple[str, ...]:
        """Notes about the source, and about the rate and the colours of a segment, by a frame as it was decoded."""
        by_stamps = f"{float(fps):.4g} frames a second by its time stamps" if fps != self.table.fps else ""
        is_known = is_matrix_known(frame)
        of_colours = "" if is_known else f"colour matrix {frame.colorspace} is taken for the default one"
        return (*self.table.notes, *filter(None, (by_stamps, of_colours)))


def list_source(source: VideoSource, request: SegmentRequest) -> ListedSource:
    """List the packets of a source.

    Args:
        source: path, or the bytes of an encoded file.
        request: what is wanted of it.

    Raises:
        VideoError: it cannot be read, has no rate, or is too short for the request.
    """
    table = list_packets(source)
    seconds = _frame_seconds(source, table, request)
    return ListedSource(source, table, seconds, _frame_rate(table, seconds))


def _frame_seconds(source: VideoSource, table: PacketTable, request: SegmentRequest) -> npt.NDArray[np.float64] | None:
    """When each frame is shown on the clock of the file; None where only decoding would show it and none needs it."""
    if table.seconds is None:
        shown = np.sort(table.packet_seconds)
        is_rate_certain = agrees(table.fps, shown) and request.is_even(shown, fps=float(table.fps or 1))
        if is_rate_certain and not request.needs_times:
            return None
        seconds = decoded_seconds(source, end_seconds=request.end)
        if not len(seconds):
            raise VideoError(ZERO_FRAMES)
        return seconds
    if request.needs_times and not table.is_whole and request.end > table.seconds[-1]:
        raise VideoError(f"truncated: the wanted part continues after the {table.num_packets} frames in the file")
    return table.seconds


def _frame_rate(table: PacketTable, seconds: npt.NDArray[np.float64] | None) -> Fraction:
    rate = table.fps
    if seconds is not None and not agrees(rate, table.packet_seconds):
        rate = believed_rate(rate, seconds)
    if rate is None:
        raise VideoError(NO_FRAME_RATE)
    return rate
