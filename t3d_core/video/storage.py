"""A source video goes in, small files made for reading clips come out: these are what shards keep.

Frame k of a segment is source frame `start_frame` + k of a full decode: nothing is dropped, doubled or resampled in
time. A video is prepared whole or not at all: damage that the decoder reports, or a file truncated inside a packet, is
a VideoError and never a shorter video. (What FFmpeg conceals looks whole, and so does a file truncated between packets
whose container states no length: all except mp4 and Matroska.)

    copy   the packets of the source, no quality lost     its first frame may be a few after the file's (frame_offset)
    h264   H.264 made for stride 2, 256 px                `segment_writer`
    jpeg   a JPEG a frame                                 exact random access, several times the bytes
    auto   copy where the picture is not larger than `short_side`, not rotated, and a window is cheap to reach (key
           frames near, or a short video where only its start can be sought: `stream_copy`), else h264

Pixels are stored as they are decoded: a pixel aspect ratio is not applied (nor is it when a source is read), so the
340x256 Kinetics copies that note one keep their 340 columns.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from t3d_core.errors import UserError
from t3d_core.video.container import EmptyIntervalError, VideoError, VideoSource, iterate_frames, open_video
from t3d_core.video.conversion import converted_once, displayed_size, rotation_of
from t3d_core.video.decoding import ZERO_FRAMES, is_steady
from t3d_core.video.encodings import Encoding
from t3d_core.video.listed_source import ListedSource, list_source
from t3d_core.video.segment_ranges import FrameRange, FrameRanges, SegmentRequest
from t3d_core.video.segment_writer import KEY_DISTANCE, SegmentWriter, upright_frame
from t3d_core.video.sizes import resized_size
from t3d_core.video.source_frames import SourceFrame, SourceReader
from t3d_core.video.stream_copy import CopyError, copy_stretch, is_cheap_to_read


@dataclass(frozen=True)
class EncodedSegment:
    """A stretch of a video as one file in memory.

    Attributes:
        data: the file; frame k of the segment is `decode_frames(data, [frame_offset + k])`.
        encoding: what was made of it: "copy", "h264" or "jpeg".
        num_frames: frames of the segment.
        frame_offset: frames in `data` before the segment's first one (a copy begins at an earlier key frame).
        fps: constant; the source's average, by the time stamps where its header, or the segment's own frames, disagree.
        height: pixels, upright; even except for copies.
        width: pixels, upright; even except for copies.
        start_frame: index in the source of its first frame.
        key_distance: frames from key frame to key frame where that is all `decode_frames` needs to know, else None.
        notes: what is doubtful about the source, for people: a sentence each.
    """

    data: bytes
    encoding: str
    num_frames: int
    frame_offset: int
    fps: float
    height: int
    width: int
    start_frame: int
    key_distance: int | None = None
    notes: tuple[str, ...] = ()


def encode_segments(
    source: VideoSource,
    *,
    encoding: Encoding = "auto",
    short_side: int,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    max_segment_seconds: float | None = None,
    num_random_segments: int | None = None,
    seed: int | Sequence[int] = 0,
) -> Iterator[EncodedSegment]:
    """Store a video, an interval of it, or pieces; at most one segment is in memory.

    Args:
        source: path, or the bytes of an encoded file.
        encoding: "copy", "h264", "jpeg", or "auto" for the rule above.
        short_side: pixels; larger videos are scaled down to it (never by "copy"), smaller ones are kept.
        start_seconds: begin of the wanted interval (included) on the clock of the file, which players show; the first
            picture may come later than 0 s. None for the start of the video.
        end_seconds: end of the wanted interval (excluded), None for the end; an interval may end after the video.
        max_segment_seconds: cut into pieces of at most this length (unlabelled videos); None gives ONE segment, so
            that testing clips of a labelled video carry the frame indices of the source.
        num_random_segments: of the whole video, keep this many windows of `max_segment_seconds` at random places, one
            in each of equal parts; fewer where the video is shorter, at least one. None keeps all.
        seed: of these places.

    Raises:
        UserError: an argument is out of range.
        EmptyIntervalError: the video has no frame in the interval.
        VideoError: the video is damaged, or cannot be copied exactly ("copy").
    """
    request = SegmentRequest(start_seconds, end_seconds, max_segment_seconds, num_random_segments, seed)
    if encoding not in get_args(Encoding):
        raise UserError(f"encoding must be one of {get_args(Encoding)}, got {encoding!r}")
    if short_side < 2:
        raise UserError(f"short_side must be >= 2, got {short_side}")
    return _encode_segments(source, encoding, short_side, request)


def encode_video(frames: Iterable[npt.NDArray[np.uint8]], *, path: str | os.PathLike[str], fps: float) -> None:
    """Write RGB frames as an H.264 mp4 file as segments are stored; the same frames give the same bytes.

    Args:
        frames: arrays frame_HWC, uint8, all of one size; odd sizes lose a pixel row or column by scaling.
        path: file to write.
        fps: frames a second.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError("frames must hold at least one frame, got none")
    height, width = first.shape[:2]
    with (
        open(path, "wb") as file,
        SegmentWriter(file, codec="h264", size=_even_size(height, width), fps=Fraction(fps)) as writer,
    ):
        for frame_HWC in chain([first], frames):
            if frame_HWC.shape != first.shape:
                raise UserError(f"frames must all have the shape {first.shape}, got {frame_HWC.shape}")
            writer.write(VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24"))


def _encode_segments(
    source: VideoSource, encoding: Encoding, short_side: int, request: SegmentRequest
) -> Iterator[EncodedSegment]:
    origin = list_source(source, request)
    table = origin.table
    is_stated = origin.fps == table.fps
    ranges = request.frame_ranges(origin.seconds, fps=float(origin.fps) if is_stated else None)
    if not ranges.stretches:
        raise EmptyIntervalError(f"zero frames between {request.start} s and {request.end} s")
    is_small = min(table.height, table.width) <= short_side
    num_done = 0
    is_auto = encoding == "auto"
    if encoding == "copy" or (is_auto and is_small and is_cheap_to_read(table, ranges)):
        try:
            for segment in _copy_ranges(origin, ranges, is_upright_only=is_auto):
                yield segment
                num_done += 1
            return
        except CopyError:
            if not is_auto:
                raise
    # Ranges do not depend on the encoding: what is copied already need not be made again.
    remaining = islice(ranges.pieces(), num_done, None)
    yield from _encode_ranges(origin, remaining, "jpeg" if encoding == "jpeg" else "h264", short_side)


def _copy_ranges(origin: ListedSource, ranges: FrameRanges, *, is_upright_only: bool) -> Iterator[EncodedSegment]:
    with SourceReader(origin.source, origin.table, keeps_packets=True) as reader:
        for piece, first, frames in _stretches(reader, ranges.pieces()):
            rotation, fps = rotation_of(first.frame), origin.rate_of(piece)
            notes = origin.notes_of(first.frame, fps=fps)
            if rotation and is_upright_only:
                raise CopyError("copy: the picture is rotated")
            copy = copy_stretch(reader, chain([first], frames), fps=fps)
            height, width = displayed_size(first.frame.height, first.frame.width, rotation_degrees=rotation)
            yield EncodedSegment(
                copy.data,
                "copy",
                copy.num_frames,
                copy.frame_offset,
                float(fps),
                height,
                width,
                first.frame_index,
                notes=notes,
            )


def _encode_ranges(
    origin: ListedSource, ranges: Iterable[FrameRange], codec: Literal["h264", "jpeg"], short_side: int
) -> Iterator[EncodedSegment]:
    with SourceReader(origin.source, origin.table) as reader:
        for piece, first, frames in _stretches(reader, ranges):
            rotation, fps = rotation_of(first.frame), origin.rate_of(piece)
            notes = origin.notes_of(first.frame, fps=fps)
            size = displayed_size(reader.video.height, reader.video.width, rotation_degrees=rotation)
            height, width = _stored_size(*size, short_side)
            file = io.BytesIO()
            with SegmentWriter(file, codec=codec, size=(height, width), fps=fps) as writer:
                for frame in converted_once(item.frame for item in chain([first], frames)):
                    writer.write(upright_frame(frame, rotation_degrees=rotation))
            data = file.getvalue()
            _check_count(data, writer.num_frames)
            yield EncodedSegment(
                data,
                codec,
                writer.num_frames,
                0,
                float(fps),
                height,
                width,
                first.frame_index,
                key_distance=KEY_DISTANCE[codec] if is_steady(data, key_distance=KEY_DISTANCE[codec]) else None,
                notes=notes,
            )


def _stretches(
    reader: SourceReader, ranges: Iterable[FrameRange]
) -> Iterator[tuple[FrameRange, SourceFrame, Iterator[SourceFrame]]]:
    """Every range that has a frame, its first one and the others; read a range to its end before the next."""
    has_frames = False
    for first, stop in ranges:
        frames = reader.frames(first, stop)
        if (frame := next(frames, None)) is None:
            break
        has_frames = True
        yield (first, stop), frame, frames
    if not has_frames:
        raise VideoError(ZERO_FRAMES)


def _stored_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    if min(height, width) > short_side:
        height, width = resized_size(height, width, short_side=short_side)
    return _even_size(height, width)


def _even_size(height: int, width: int) -> tuple[int, int]:
    """Rounded down to even, as 4:2:0 colour needs; never up, so that no video grows."""
    if min(height, width) < 2:
        raise VideoError(f"picture size {width}x{height} is below 2x2 pixels")
    return height // 2 * 2, width // 2 * 2


def _check_count(data: bytes, num_frames: int) -> None:
    """Decode a new segment in full."""
    with open_video(data) as video:
        num_decoded = sum(1 for _ in iterate_frames(video, is_strict=True))
    if num_decoded != num_frames:
        raise VideoError(f"encoding failed: {num_decoded} of {num_frames} frames were written")
