"""A number of frames goes in, the frame indices of clips come out; integers only (paper 4.4, Tables 3 and 6).

A clip is `num_frames` frames, `frame_stride` apart. It covers `clip_span` frames of the video:

    num_frames 4, frame_stride 2      x . x . x . x      span 7

A video shorter than the span is completed by the `short_video` rule, and the made-up indices are counted, so that their
share can be reported with every metric. With 5 frames in the video and the clip above:

    video            0 1 2 3 4
    loop             0   2   4   1        the video starts again after frame 4
    repeat_last      0   2   4   4        the last frame stands still
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError

ShortVideo = Literal["loop", "repeat_last"]


class ClipIndices(NamedTuple):
    """One clip: `num_frames` int64 indices into the video, and how many of them are made up (video too short)."""

    frame_indices: npt.NDArray[np.int64]
    num_padded: int


def clip_span(num_frames: int, frame_stride: int) -> int:
    """Frames of the video that a clip covers, from its first to its last frame."""
    if num_frames < 1 or frame_stride < 1:
        raise UserError(f"num_frames and frame_stride must be >= 1, got {num_frames} and {frame_stride}")
    return (num_frames - 1) * frame_stride + 1


def random_clip(
    video_num_frames: int,
    *,
    num_frames: int,
    frame_stride: int,
    short_video: ShortVideo,
    rng: np.random.Generator,
    start_multiple: int = 1,
) -> ClipIndices:
    """A training clip whose start is drawn uniformly among all starts that fit.

        start_multiple 2      x.x.x.x...     ..x.x.x.x.     (span 7 in 10 frames: starts 0 and 2)

    Args:
        video_num_frames: frames in the video.
        num_frames: frames in the clip.
        frame_stride: distance of its frames.
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
    frame_stride: int,
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
    video_num_frames: int, *, num_clips: int, num_frames: int, frame_stride: int, short_video: ShortVideo
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
    video_num_frames: int, *, num_frames: int, frame_stride: int, short_video: ShortVideo
) -> list[ClipIndices]:
    """The testing clips of a video: side by side from frame 0, at least one (paper 4.4).

        num_frames 3, frame_stride 2, 15 frames      x.x.x.x.x.x....
                                                     [----][----]---   the tail is shorter than a span: dropped

    Paper: 4.4 says "non-overlapping 32-frame clips" and no more. Clips start every num_frames * frame_stride frames, so
    that the grid of sampled frames continues across clips and at stride 2 every start is even. A tail shorter than a
    span is dropped: completing it would put made-up frames into the score of every video. Only a video without any
    full clip is completed by `short_video`, so that every video is scored.
    """
    _check_video(video_num_frames)
    room = max(video_num_frames - clip_span(num_frames, frame_stride), 0)
    starts = range(0, room + 1, num_frames * frame_stride)
    return [_clip_at(start, video_num_frames, num_frames, frame_stride, short_video) for start in starts]


def _clip_at(
    start: int, video_num_frames: int, num_frames: int, frame_stride: int, short_video: ShortVideo
) -> ClipIndices:
    indices = start + np.arange(num_frames, dtype=np.int64) * frame_stride
    num_padded = int((indices >= video_num_frames).sum())
    if short_video == "loop":
        return ClipIndices(indices % video_num_frames, num_padded)
    if short_video == "repeat_last":
        return ClipIndices(np.minimum(indices, video_num_frames - 1), num_padded)
    raise UserError(f"short_video must be 'loop' or 'repeat_last', got {short_video!r}")


def _check_video(video_num_frames: int) -> None:
    if video_num_frames < 1:
        raise UserError(f"video_num_frames must be >= 1, got {video_num_frames}")
