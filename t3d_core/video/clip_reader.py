"""A source video of any length goes in, the views that a network scores come out one by one (paper 4.4, Testing).

A view is what the network scores at once: a clip in one crop, or S clips of the video for a network of S segments. The
frames of a view are those that testing takes from a prepared video, and so are its pixels where `prepare` copies the
video. The file is read once, in ascending order, and only the views that are not yet complete are in memory:

    frame    0 1 2 3 4 5 6 7 8 9 ...
    clip 0   x . x . x                  handed over after frame 4
    clip 1             x . x . x ...    the tail of the video, shorter than a clip, gives none

Shape letters: S segments, T frames, H height, W width, C = 3 colours.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import (
    ClipIndices,
    ShortVideo,
    grid_clip,
    non_overlapping_clips,
    spaced_clip,
    stride_of_clip,
    stride_of_seconds,
    uniform_clips,
)
from t3d_core.video.container import VideoError, VideoSource
from t3d_core.video.conversion import FrameConverter, displayed_size, rotation_of
from t3d_core.video.cropping import Crop, crop_frames, mirrored, view_crops
from t3d_core.video.decoding import ZERO_FRAMES
from t3d_core.video.listed_source import ListedSource, list_source
from t3d_core.video.segment_ranges import SegmentRequest
from t3d_core.video.sizes import resized_size
from t3d_core.video.source_frames import SourceFrame, SourceReader


@dataclass(frozen=True)
class ViewSampling:
    """Which views of a video are read, and how the network sees them.

    Attributes:
        num_frames: frames of a clip.
        frame_stride: frames of the video from one frame of a clip to the next; None with `seconds_per_frame`.
        seconds_per_frame: the same distance in seconds; None with `frame_stride`.
        short_video: what completes the only clip of a video that is shorter than it.
        short_side: pixels to which the shorter side is scaled.
        crop_size: pixels of the square that is cut out.
        num_segments: clips of a view, at even distances over the video.
        num_clips: clips of the video, at even distances; None for all that do not overlap (paper 4.4). A view of
            several segments always takes as many clips as it has segments.
        stride_seconds: seconds from the start of a clip to that of the next, for a finer or a coarser timeline; None
            for clips side by side. Not with `num_clips` or several segments.
        num_crops: squares of every clip, as `view_crops`.
    """

    num_frames: int
    frame_stride: int | None
    seconds_per_frame: float | None
    short_video: ShortVideo
    short_side: int
    crop_size: int
    num_segments: int = 1
    num_clips: int | None = None
    stride_seconds: float | None = None
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.stride_seconds is None:
            return
        if not self.stride_seconds > 0:
            raise UserError(f"stride_seconds must be above 0, got {self.stride_seconds}")
        if self.num_clips is not None or self.num_segments > 1:
            raise UserError(
                f"stride_seconds {self.stride_seconds:g} sets where clips start, and so do num_clips and the segments "
                "of a network: leave one of them out"
            )

    @property
    def is_spread(self) -> bool:
        """Whether the places of the clips depend on the length of the video."""
        return self.num_clips is not None or self.num_segments > 1


class VideoView(NamedTuple):
    """One view.

    Attributes:
        clip_STHWC: uint8 RGB.
        start_seconds: when its first frame is shown, on the clock of the file.
        end_seconds: when its last frame ends.
        num_padded: frames that are made up, because the video is too short.
    """

    clip_STHWC: npt.NDArray[np.uint8]
    start_seconds: float
    end_seconds: float
    num_padded: int


def read_views(source: VideoSource, sampling: ViewSampling) -> Iterator[VideoView]:
    """Read the views of a video in order of time.

    Args:
        source: path, or the bytes of an encoded file.
        sampling: which views.

    Raises:
        VideoError: the file cannot be read or decoded; views before the damage have been given.
    """
    listed = list_source(source, SegmentRequest())
    views = _Views(listed, sampling)
    if sampling.is_spread:
        yield from views.read(views.spread(_count_frames(listed)))
        return
    num_views = 0
    for view in views.read(views.all_along()):
        yield view
        num_views += 1
    if num_views == 0:
        yield from views.read(views.of_short_video(views.num_frames_seen))


def _count_frames(listed: ListedSource) -> int:
    if len(listed.table.pts):
        return len(listed.table.pts)
    with SourceReader(listed.source, listed.table) as reader:
        return sum(1 for _ in reader.frames(0, None))


class _Views:
    """The views of one source.

    Attributes:
        num_frames_seen: frames of the video up to the last one that was read.
    """

    def __init__(self, listed: ListedSource, sampling: ViewSampling) -> None:
        self._listed, self._sampling = listed, sampling
        self._fps = listed.rate_of((0, None))
        self._stride = stride_of_clip(sampling.frame_stride, sampling.seconds_per_frame, fps=float(self._fps))
        self.num_frames_seen = 0

    def all_along(self) -> Iterator[ClipIndices]:
        """Clips without end; those that the video has no frames for are never complete."""
        num_frames, seconds = self._sampling.num_frames, self._sampling.stride_seconds
        distance = None if seconds is None else stride_of_seconds(seconds, fps=float(self._fps))
        for number in itertools.count():
            if distance is None:
                indices = grid_clip(number, num_frames=num_frames, frame_stride=self._stride)
            else:
                indices = spaced_clip(number, num_frames=num_frames, frame_stride=self._stride, distance=distance)
            yield ClipIndices(indices, 0)

    def spread(self, video_num_frames: int) -> Iterator[ClipIndices]:
        """Clips at even distances, those of a view joined."""
        sampling = self._sampling
        is_segmented = sampling.num_segments > 1
        clips = uniform_clips(
            _some(video_num_frames),
            num_clips=sampling.num_segments if is_segmented else sampling.num_clips or 1,
            num_frames=sampling.num_frames,
            frame_stride=self._stride,
            short_video=sampling.short_video,
        )
        if not is_segmented:
            yield from clips
            return
        indices = np.concatenate([clip.frame_indices for clip in clips])
        yield ClipIndices(indices, sum(clip.num_padded for clip in clips))

    def of_short_video(self, video_num_frames: int) -> Iterator[ClipIndices]:
        """The completed clip of a video that is shorter than one."""
        yield from non_overlapping_clips(
            _some(video_num_frames),
            num_frames=self._sampling.num_frames,
            frame_stride=self._stride,
            short_video=self._sampling.short_video,
        )

    def read(self, planned: Iterator[ClipIndices]) -> Iterator[VideoView]:
        """Decode clips, which ascend by their first frames; one whose last frame the video lacks is not given."""
        upcoming = _Upcoming(planned)
        with SourceReader(self._listed.source, self._listed.table) as reader:
            while upcoming.first is not None:
                num_before = self.num_frames_seen
                yield from self._read_stretch(reader, upcoming)
                if self.num_frames_seen == num_before:
                    return  # the end of the video

    def _read_stretch(self, reader: SourceReader, upcoming: "_Upcoming") -> Iterator[VideoView]:
        """Decode up to a gap between clips, over which the reader may seek, or to the end of the video."""
        started: deque[_StartedClip] = deque()
        for item in reader.frames(upcoming.first or 0, None):
            self.num_frames_seen = item.frame_index + 1
            started.extend(_StartedClip(clip, self._converter(clip, item)) for clip in upcoming.begun(item.frame_index))
            for clip in started:
                clip.write(item)
            while started and started[0].converter.last_index <= item.frame_index:
                yield from self._cut(started.popleft())
            if not started and (upcoming.first is None or upcoming.first > item.frame_index + 1):
                return

    def _converter(self, clip: ClipIndices, item: SourceFrame) -> FrameConverter:
        size = self._scaled_size(item)
        crops = self._crops(size)
        # The converter cuts a single crop, which leaves less to scale.
        return FrameConverter(clip.frame_indices, size=size, crop=crops[0][0] if len(crops) == 1 else None)

    def _scaled_size(self, item: SourceFrame) -> tuple[int, int]:
        frame = item.frame
        upright = displayed_size(frame.height, frame.width, rotation_degrees=rotation_of(frame))
        return resized_size(*upright, short_side=self._sampling.short_side)

    def _crops(self, size: tuple[int, int]) -> Sequence[tuple[Crop, bool]]:
        return view_crops(*size, crop_size=self._sampling.crop_size, num_crops=self._sampling.num_crops)

    def _cut(self, clip: "_StartedClip") -> Iterator[VideoView]:
        """The views of a complete clip, one for each crop."""
        frames_THWC, indices = clip.converter.frames_THWC, clip.planned.frame_indices
        height, width = frames_THWC.shape[1:3]
        crops = self._crops((height, width))
        for crop, is_mirrored in crops:
            square_THWC = frames_THWC if len(crops) == 1 else crop_frames(frames_THWC, crop)
            square_THWC = mirrored(square_THWC) if is_mirrored else square_THWC
            yield VideoView(
                square_THWC.reshape(self._sampling.num_segments, self._sampling.num_frames, *square_THWC.shape[1:]),
                self._seconds_of(int(indices.min())),
                self._seconds_of(int(indices.max())) + float(1 / self._fps),
                clip.planned.num_padded,
            )

    def _seconds_of(self, frame_index: int) -> float:
        seconds = self._listed.seconds
        return float(frame_index / self._fps) if seconds is None else float(seconds[frame_index])


class _Upcoming:
    """Planned clips that are taken when their first frame comes."""

    def __init__(self, planned: Iterator[ClipIndices]) -> None:
        self._planned = planned
        self._next = next(planned, None)

    @property
    def first(self) -> int | None:
        """The first frame of the next clip; None after the last clip."""
        return None if self._next is None else int(self._next.frame_indices.min())

    def begun(self, frame_index: int) -> Iterator[ClipIndices]:
        """Take the clips that begin at or before a frame."""
        while self._next is not None and self._next.frame_indices.min() <= frame_index:
            yield self._next
            self._next = next(self._planned, None)


class _StartedClip(NamedTuple):
    """A clip some of whose frames may still be missing."""

    planned: ClipIndices
    converter: FrameConverter

    def write(self, item: SourceFrame) -> None:
        """Put a frame where the clip has it."""
        if item.frame_index in self.converter.rows_of_index:
            size = item.frame.height, item.frame.width
            self.converter.write(item.frame, item.frame_index, video_size=size)


def _some(num_frames: int) -> int:
    if num_frames == 0:
        raise VideoError(ZERO_FRAMES)
    return num_frames
