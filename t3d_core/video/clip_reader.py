"""A source video of any length goes in, the views that a network scores come out one by one (paper 4.4, Testing).

A view is what the network scores at once: a clip in one crop, or S clips of the video for a network of S segments. The
frames of a view are those that testing takes from a prepared video, and so are its pixels where `prepare` copies the
video. The file is read once, in ascending order, and only the views that are not yet complete are in memory:

    frame    0 1 2 3 4 5 6 7 8 9 ...
    clip 0   x . x . x                  handed over after frame 4
    clip 1             x . x . x ...    the tail of the video, shorter than a clip, gives none

Where the frames are known without decoding, several workers may each read a share of the clips of one long video.

Shape letters: S segments, T frames, H height, W width, C = 3 colours.
"""

import bisect
import functools
import itertools
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from t3d_core.errors import UserError
from t3d_core.video.clip_sampling import (
    ClipIndices,
    ClipView,
    grid_clip,
    spaced_clip,
    stride_of_seconds,
    testing_views,
)
from t3d_core.video.container import VideoError, VideoSource, iterate_frames, open_video
from t3d_core.video.conversion import FrameConverter, displayed_size, rotation_of
from t3d_core.video.cropping import Crop, crop_frames, mirrored, view_crops
from t3d_core.video.decoding import ZERO_FRAMES
from t3d_core.video.listed_source import ListedSource, list_source
from t3d_core.video.segment_ranges import SegmentRequest
from t3d_core.video.sizes import resized_size
from t3d_core.video.source_frames import SourceFrame, SourceReader

_MAX_CLIPS = 1 << 40  # more than any video has


@dataclass(frozen=True)
class ViewSampling:
    """Which views of a video are read.

    Attributes:
        clip: how the network sees a clip.
        num_clips: clips of the video, at even distances; None for all that do not overlap (paper 4.4). A view of
            several segments always takes as many clips as it has segments.
        stride_seconds: seconds from the start of a clip to that of the next, for a finer or a coarser timeline; None
            for clips side by side. Not with `num_clips` or several segments.
        num_crops: squares of every clip, as `view_crops`.
    """

    clip: ClipView
    num_clips: int | None = None
    stride_seconds: float | None = None
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.stride_seconds is None:
            return
        if not self.stride_seconds > 0:
            raise UserError(f"stride_seconds must be above 0, got {self.stride_seconds}")
        if self.is_spread:
            raise UserError(
                f"stride_seconds {self.stride_seconds:g} sets where clips start, and so do num_clips and the segments "
                "of a network: leave one of them out"
            )

    @property
    def is_spread(self) -> bool:
        """Whether the places of the clips depend on the length of the video."""
        return self.num_clips is not None or self.clip.num_segments > 1


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


class VideoShare(NamedTuple):
    """One of several equal shares of the clips of a video, in order of time.

    Attributes:
        place: of this share, from 0.
        num_shares: of the video.
    """

    place: int = 0
    num_shares: int = 1


WHOLE_VIDEO = VideoShare()


def read_views(source: VideoSource, sampling: ViewSampling, *, share: VideoShare = WHOLE_VIDEO) -> Iterator[VideoView]:
    """Read the views of a video, or of a share of its clips, in order of time.

    The views of all shares together are those of the whole video. The first share has all of them where the places of
    clips depend on the length of the video, or where only decoding shows which frames there are.

    Args:
        source: path, or the bytes of an encoded file.
        sampling: which views.
        share: which of them.

    Raises:
        VideoError: the file cannot be read or decoded; views before the damage have been given.
    """
    if sampling.is_spread and share.place > 0:
        return
    listed = list_source(source, SegmentRequest()) if share == WHOLE_VIDEO else _list_shared(source)
    views = _Views(listed, sampling)
    if sampling.is_spread:
        yield from views.read(views.of_known_length(_count_frames(listed)))
        return
    if share.num_shares > 1 and (num_clips := views.num_known_clips()):
        yield from views.read(views.of_share(share, num_clips))
        return
    if share.place > 0:
        return
    num_views = 0
    for view in views.read(views.all_along()):
        yield view
        num_views += 1
    if num_views == 0:
        yield from views.read(views.of_known_length(views.num_frames_seen))


def _list_shared(source: VideoSource) -> ListedSource:
    """The packets of a video; for its other shares they are not listed again while the file stays as it is."""
    if isinstance(source, bytes):
        return list_source(source, SegmentRequest())
    status = os.stat(source)
    return _list_once(os.fspath(source), (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _list_once(path: str, _state: tuple[int, ...]) -> ListedSource:
    return list_source(path, SegmentRequest())


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
        self._stride = sampling.clip.stride_at(float(self._fps))
        self._converter: FrameConverter | None = None  # made with the first frame
        self._crops: Sequence[tuple[Crop, bool]] = ()
        self.num_frames_seen = 0

    def all_along(self) -> Iterator[ClipIndices]:
        """Clips without end; those that the video has no frames for are never complete."""
        return map(self._clip_at, itertools.count())

    def num_known_clips(self) -> int:
        """Complete clips all along the video; 0 where only decoding shows which frames there are."""
        num_frames = len(self._listed.table.pts) if self._listed.table.is_whole else 0
        return bisect.bisect_left(range(_MAX_CLIPS), num_frames, key=lambda number: self._clip_at(number)[0][-1])

    def of_share(self, share: VideoShare, num_clips: int) -> Iterator[ClipIndices]:
        """The clips of a share; those of the last one are without end, so that it reads all that follows."""
        first, stop = (num_clips * place // share.num_shares for place in (share.place, share.place + 1))
        if first > 0:  # the first frame of a video sets the size of all its pictures
            with open_video(self._listed.source) as video:
                frame = next(iterate_frames(video))
                self._fit_to(frame).write(frame, 0, video_size=(frame.height, frame.width))
        return map(self._clip_at, range(first, stop) if share.place + 1 < share.num_shares else itertools.count(first))

    def _clip_at(self, number: int) -> ClipIndices:
        num_frames, seconds = self._sampling.clip.num_frames, self._sampling.stride_seconds
        if seconds is None:
            indices = grid_clip(number, num_frames=num_frames, frame_stride=self._stride)
        else:
            distance = stride_of_seconds(seconds, fps=float(self._fps))
            indices = spaced_clip(number, num_frames=num_frames, frame_stride=self._stride, distance=distance)
        return ClipIndices(indices, 0)

    def of_known_length(self, video_num_frames: int) -> Iterator[ClipIndices]:
        """The views of testing, the clips of each joined."""
        if video_num_frames == 0:
            raise VideoError(ZERO_FRAMES)
        for clips in testing_views(
            self._sampling.clip, video_num_frames, frame_stride=self._stride, num_clips=self._sampling.num_clips
        ):
            indices = np.concatenate([clip.frame_indices for clip in clips])
            yield ClipIndices(indices, sum(clip.num_padded for clip in clips))

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
            started.extend(map(_StartedClip, upcoming.begun(item.frame_index)))
            if any(item.frame_index in clip.rows_of_index for clip in started):
                picture_HWC = self._convert(item)  # once, however many clips overlap here
                for clip in started:
                    clip.write(picture_HWC, item.frame_index)
            while started and started[0].last_index <= item.frame_index:
                yield from self._cut(started.popleft())
            if not started and (upcoming.first is None or upcoming.first > item.frame_index + 1):
                return

    def _convert(self, item: SourceFrame) -> npt.NDArray[np.uint8]:
        """A frame as the network sees it: scaled, and cut if there is a single crop; the next call overwrites it."""
        converter = self._converter or self._fit_to(item.frame)
        converter.write(item.frame, 0, video_size=(item.frame.height, item.frame.width))
        return converter.frames_THWC[0]

    def _fit_to(self, frame: VideoFrame) -> FrameConverter:
        """Set the size and the crops of all pictures by the first frame of the video."""
        upright = displayed_size(frame.height, frame.width, rotation_degrees=rotation_of(frame))
        size = resized_size(*upright, short_side=self._sampling.clip.short_side)
        self._crops = view_crops(*size, crop_size=self._sampling.clip.crop_size, num_crops=self._sampling.num_crops)
        # The converter cuts a single crop, which leaves less to scale.
        crop = self._crops[0][0] if len(self._crops) == 1 else None
        self._converter = FrameConverter(np.zeros(1, np.int64), size=size, crop=crop)
        return self._converter

    def _cut(self, clip: "_StartedClip") -> Iterator[VideoView]:
        """The views of a complete clip, one for each crop."""
        view, indices = self._sampling.clip, clip.planned.frame_indices
        for crop, is_mirrored in self._crops:
            square_THWC = clip.frames_THWC if len(self._crops) == 1 else crop_frames(clip.frames_THWC, crop)
            square_THWC = mirrored(square_THWC) if is_mirrored else square_THWC
            yield VideoView(
                square_THWC.reshape(view.num_segments, view.num_frames, *square_THWC.shape[1:]),
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


class _StartedClip:
    """A clip some of whose frames may still be missing.

    Attributes:
        planned: its frames.
        rows_of_index: where each frame of the video stands in it.
        last_index: its last frame.
        frames_THWC: the pixels; made with the first of them.
    """

    frames_THWC: npt.NDArray[np.uint8]

    def __init__(self, planned: ClipIndices) -> None:
        self.planned = planned
        self.rows_of_index: dict[int, list[int]] = defaultdict(list)
        for row, index in enumerate(planned.frame_indices.tolist()):
            self.rows_of_index[index].append(row)
        self.last_index = max(self.rows_of_index)

    def write(self, picture_HWC: npt.NDArray[np.uint8], frame_index: int) -> None:
        """Put a frame where the clip has it."""
        if not hasattr(self, "frames_THWC"):
            self.frames_THWC = np.empty((len(self.planned.frame_indices), *picture_HWC.shape), np.uint8)
        for row in self.rows_of_index.get(frame_index, ()):
            self.frames_THWC[row] = picture_HWC
