"""A number of frames goes in, the frame indices of clips come out; exact on integers (paper 4.4, Tables 3 and 6).

A clip is `num_frames` frames, `frame_stride` apart. It covers `clip_span` frames of the video:

    num_frames 4, frame_stride 2      x . x . x . x      span 7

Videos of 15 to 60 frames a second show the same moments when the distance is one in time (`stride_of_seconds`). The
stride is then a fraction, and frame k of a clip that starts at s is s + k * stride, rounded, half a frame up. For
1/10 second:

    30 fps, stride 3      x..x..x..x
    20 fps, stride 2      x.x.x.x
    15 fps, stride 3/2    x.xx.x        frames 0, 1.5 -> 2, 3, 4.5 -> 5

A video shorter than the span is completed by the `short_video` rule, and the made-up indices are counted, so that their
share can be reported with every metric. With 5 frames in the video and the clip above:

    video            0 1 2 3 4
    loop             0   2   4   1        the video starts again after frame 4
    repeat_last      0   2   4   4        the last frame stands still
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError

ShortVideo = Literal["loop", "repeat_last"]
Stride = int | Fraction
"""Distance of the frames of a clip in frames of the video, above 0; below 1 frames repeat."""

# Rates and distances come as floats; this recovers 30000/1001 and 1001/15000.
_MAX_DENOMINATOR = 1_000_000


class ClipIndices(NamedTuple):
    """One clip: `num_frames` int64 indices into the video, and how many of them are made up (video too short)."""

    frame_indices: npt.NDArray[np.int64]
    num_padded: int


def stride_of_seconds(seconds_per_frame: float, *, fps: float) -> Fraction:
    """The stride, in frames of a video of `fps` frames a second, that `seconds_per_frame` seconds are.

    Both numbers stand for the simple fractions near them, so that 1/15 second is 2 frames of 30 a second.
    """
    if not (seconds_per_frame > 0 and fps > 0):
        raise UserError(f"seconds_per_frame and fps must be above 0, got {seconds_per_frame} and {fps}")
    seconds, rate = (Fraction(number).limit_denominator(_MAX_DENOMINATOR) for number in (seconds_per_frame, fps))
    return seconds * rate


def stride_of_clip(frame_stride: int | None, seconds_per_frame: float | None, *, fps: float) -> Stride:
    """The stride in a video of `fps` frames a second, where exactly one of the two distances is given."""
    if frame_stride is not None:
        return frame_stride
    assert seconds_per_frame is not None, "checked where settings and weights are read"
    return stride_of_seconds(seconds_per_frame, fps=fps)


@dataclass(frozen=True)
class ClipView:
    """How a network sees a clip.

    Attributes:
        num_frames: frames of a clip.
        frame_stride: frames of the video from one frame of a clip to the next; None with `seconds_per_frame`.
        crop_size: pixels of the square that is cut out.
        short_side: pixels to which the shorter side is scaled before.
        short_video: what completes a clip when the video is shorter than its span.
        num_segments: clips of a video that make one example.
        seconds_per_frame: the distance of frames in seconds; None with `frame_stride`.
    """

    num_frames: int
    frame_stride: int | None
    crop_size: int
    short_side: int
    short_video: ShortVideo
    num_segments: int = 1
    seconds_per_frame: float | None = None

    def stride_at(self, fps: float) -> Stride:
        """The distance of clip frames in a video of `fps` frames a second, in frames of that video."""
        return stride_of_clip(self.frame_stride, self.seconds_per_frame, fps=fps)


def clip_span(num_frames: int, frame_stride: Stride) -> int:
    """Frames of the video that a clip covers, from its first to its last frame."""
    if num_frames < 1 or frame_stride <= 0:
        raise UserError(f"num_frames must be >= 1 and frame_stride above 0, got {num_frames} and {frame_stride}")
    return int(_multiples([num_frames - 1], frame_stride)[0]) + 1


def random_clip(
    video_num_frames: int,
    *,
    num_frames: int,
    frame_stride: Stride,
    short_video: ShortVideo,
    rng: np.random.Generator,
    start_multiple: int = 1,
) -> ClipIndices:
    """A training clip whose start is drawn uniformly among all starts that fit.

        start_multiple 2      x.x.x.x...     ..x.x.x.x.     (span 7 in 10 frames: starts 0 and 2)

    Args:
        video_num_frames: frames in the video.
        num_frames: frames in the clip.
        frame_stride: distance of its frames, in frames of the video.
        short_video: what completes a video shorter than the span; the clip then starts at 0.
        rng: draws the start.
        start_multiple: starts are multiples of it. 2 fits our shards, where every odd frame is a B-frame that no
            other frame needs: at stride 2 it is then never decoded.
    """
    [clip] = random_segments(
        video_num_frames,
        num_segments=1,
        num_frames=num_frames,
        frame_stride=frame_stride,
        short_video=short_video,
        rng=rng,
        start_multiple=start_multiple,
    )
    return clip


def random_segments(
    video_num_frames: int,
    *,
    num_segments: int,
    num_frames: int,
    frame_stride: Stride,
    short_video: ShortVideo,
    rng: np.random.Generator,
    start_multiple: int = 1,
) -> list[ClipIndices]:
    """A training clip from each of `num_segments` equal parts of the video (segment consensus: TSN, paper 4.6).

        3 segments      ..[---].|[---]...|.[---]..
        short video     [---]..         where a part is shorter than the span, the places where a clip can start are
                        .[---].         parted instead: clips overlap, and still come from anywhere
                        ..[---]

    Paper: 4.6 does not mention videos too short for non-overlapping clips, which most of UCF101's are.

    Arguments are those of `random_clip`, which is the clip of one part.
    """
    _check_video(video_num_frames)
    span = clip_span(num_frames, frame_stride)
    has_room = video_num_frames // num_segments >= span
    parted = video_num_frames if has_room else max(video_num_frames - span, 0)
    clips = []
    for segment in range(num_segments):
        first = parted * segment // num_segments
        last = parted * (segment + 1) // num_segments - (span if has_room else 0)
        first, last = -(-first // start_multiple), max(last // start_multiple, 0)
        start = int(rng.integers(min(first, last), last + 1)) * start_multiple
        clips.append(_clip_at(start, video_num_frames, num_frames, frame_stride, short_video))
    return clips


def uniform_clips(
    video_num_frames: int, *, num_clips: int, num_frames: int, frame_stride: Stride, short_video: ShortVideo
) -> list[ClipIndices]:
    """`num_clips` clips at even distances, the first at the start and the last at the end; one clip is the centre.

    num_clips 3      [----]  .    .
                     .    [----]  .        clips overlap where the video is short
                     .    .    [----]
    """
    if num_clips < 1:
        raise UserError(f"num_clips must be >= 1, got {num_clips}")
    _check_video(video_num_frames)
    room = max(video_num_frames - clip_span(num_frames, frame_stride), 0)
    starts = [room // 2] if num_clips == 1 else [room * i // (num_clips - 1) for i in range(num_clips)]
    return [_clip_at(start, video_num_frames, num_frames, frame_stride, short_video) for start in starts]


def non_overlapping_clips(
    video_num_frames: int, *, num_frames: int, frame_stride: Stride, short_video: ShortVideo
) -> list[ClipIndices]:
    """The testing clips of a video: side by side from frame 0, at least one (paper 4.4).

        num_frames 3, frame_stride 2, 15 frames      x.x.x.x.x.x....
                                                     [----][----]---   the tail is shorter than a span: dropped

    Paper: 4.4 says "non-overlapping 32-frame clips" and no more. Clips start every num_frames * frame_stride frames, so
    that the grid of sampled frames continues across clips and at stride 2 every start is even; where the stride is a
    fraction, every frame of the grid is rounded by itself. A tail shorter than a span is dropped: completing it would
    put made-up frames into the score of every video. Only a video without any full clip is completed by `short_video`,
    so that every video is scored.
    """
    _check_video(video_num_frames)
    grids = (grid_clip(number, num_frames=num_frames, frame_stride=frame_stride) for number in itertools.count())
    first = next(grids)
    others = itertools.takewhile(lambda indices: indices[-1] < video_num_frames, grids)
    return [_completed(grid, video_num_frames, short_video) for grid in (first, *others)]


def grid_clip(number: int, *, num_frames: int, frame_stride: Stride) -> npt.NDArray[np.int64]:
    """The frame indices of the testing clip with this number (0-based) in a video that is long enough."""
    clip_span(num_frames, frame_stride)
    return _multiples(range(number * num_frames, (number + 1) * num_frames), frame_stride)


def spaced_clip(number: int, *, num_frames: int, frame_stride: Stride, distance: Stride) -> npt.NDArray[np.int64]:
    """The frame indices of clip `number` (0-based) where clips start `distance` frames apart; they may overlap."""
    clip_span(num_frames, frame_stride)
    return _multiples([number], distance)[0] + _multiples(range(num_frames), frame_stride)


def testing_views(
    view: ClipView, video_num_frames: int, *, frame_stride: Stride, num_clips: int | None
) -> list[tuple[ClipIndices, ...]]:
    """The clips of each view that testing scores, in order of time (paper 4.4; TSN: 4.6).

    Args:
        view: how the network sees a clip; of several segments, all clips are one view.
        video_num_frames: frames in the video.
        frame_stride: `view.stride_at` the rate of the video.
        num_clips: clips at even distances; None for all that do not overlap. Without effect for several segments.
    """
    shape: dict[str, Any] = {
        "num_frames": view.num_frames,
        "frame_stride": frame_stride,
        "short_video": view.short_video,
    }
    if view.num_segments > 1:
        return [tuple(uniform_clips(video_num_frames, num_clips=view.num_segments, **shape))]
    if num_clips is not None:
        return [(clip,) for clip in uniform_clips(video_num_frames, num_clips=num_clips, **shape)]
    return [(clip,) for clip in non_overlapping_clips(video_num_frames, **shape)]


def _clip_at(
    start: int, video_num_frames: int, num_frames: int, frame_stride: Stride, short_video: ShortVideo
) -> ClipIndices:
    return _completed(start + _multiples(range(num_frames), frame_stride), video_num_frames, short_video)


def _multiples(numbers: Iterable[int], frame_stride: Stride) -> npt.NDArray[np.int64]:
    """Each number times the stride, rounded to a whole frame, halves up."""
    p, q = frame_stride.numerator, frame_stride.denominator
    return np.array([(2 * number * p + q) // (2 * q) for number in numbers], np.int64)


def _completed(indices: npt.NDArray[np.int64], video_num_frames: int, short_video: ShortVideo) -> ClipIndices:
    """The clip of these frames; those after the end of the video are made up."""
    num_padded = int((indices >= video_num_frames).sum())
    if short_video == "loop":
        return ClipIndices(indices % video_num_frames, num_padded)
    if short_video == "repeat_last":
        return ClipIndices(np.minimum(indices, video_num_frames - 1), num_padded)
    raise UserError(f"short_video must be 'loop' or 'repeat_last', got {short_video!r}")


def _check_video(video_num_frames: int) -> None:
    if video_num_frames < 1:
        raise UserError(f"video_num_frames must be >= 1, got {video_num_frames}")
