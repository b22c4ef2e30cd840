"""A source video goes in, small H.264 segments made for reading clips come out; these are what shards keep.

Every odd frame of a segment is a B-frame that no other frame needs and a key frame comes every 32 frames: at the
paper's stride 2 (Table 6) half of the frames is never decoded and a seek costs at most a short group.

    frame    0 1 2 3 4 ... 30 31 32 33        K key frame, b not needed by others
             K b P b P ...  P  P  K  b

Frame k of a segment is source frame `start_frame` + k of a full decode: nothing is dropped, doubled or resampled in
time. A video is prepared whole or not at all: damage that the decoder reports, or a file cut off inside a packet, is a
VideoError and never a shorter video. (What FFmpeg conceals, and a Matroska file cut off between packets, looks whole.)
"""

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import IO

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from t3d_core.video.cropping import resized_size
from t3d_core.video.decoding import (
    OpenVideo,
    VideoError,
    VideoSource,
    displayed_size,
    iterate_frames,
    open_video,
    rgb_view,
    upright,
)

# Trials with these settings: 4 to 57 times the samples a second of the source at PSNR 40 dB and more. One thread, so
# that the bytes do not depend on the machine's number of cores.
_X264_OPTIONS = {
    "preset": "veryfast",
    "crf": "20",
    "tune": "fastdecode",
    "x264-params": "bframes=1:b-adapt=0:b-pyramid=none:keyint=32:min-keyint=32:scenecut=0:weightp=0:threads=1",
}


@dataclass(frozen=True)
class EncodedSegment:
    """A stretch of a video as one H.264 mp4 file in memory.

    Attributes:
        data: the file.
        num_frames: frames in it.
        fps: constant; the source's average.
        height: pixels, even, upright.
        width: pixels, even, upright.
        start_frame: index in the source of its first frame.
    """

    data: bytes
    num_frames: int
    fps: float
    height: int
    width: int
    start_frame: int


def encode_segments(
    source: VideoSource,
    *,
    short_side: int,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    max_segment_seconds: float | None = None,
) -> Iterator[EncodedSegment]:
    """Re-encode a video in one pass; at most one segment is in memory.

    Args:
        source: path, or the bytes of an encoded file.
        short_side: pixels; larger videos are scaled down to it, smaller ones are kept.
        start_seconds: begin of the wanted interval (included), None for the start of the video.
        end_seconds: end of the wanted interval (excluded), None for the end; an interval may end after the video.
        max_segment_seconds: cut into pieces of at most this length (unlabelled videos); None gives ONE segment, so
            that testing clips of a labelled video carry the frame indices of the source.

    Raises:
        ValueError: an argument is out of range.
        VideoError: the video is damaged, or has no frame in the interval.
    """
    start, end = start_seconds or 0.0, float("inf") if end_seconds is None else end_seconds
    if short_side < 2:
        raise ValueError(f"short_side must be >= 2, got {short_side}")
    if not 0 <= start < end:
        raise ValueError(f"start_seconds must be >= 0 and before end_seconds, got {start_seconds} and {end_seconds}")
    if max_segment_seconds is not None and not max_segment_seconds > 0:
        raise ValueError(f"max_segment_seconds must be > 0, got {max_segment_seconds}")
    return _encode_interval(source, short_side, start, end, max_segment_seconds)


def encode_video(frames: Iterable[npt.NDArray[np.uint8]], *, path: str | os.PathLike[str], fps: float) -> None:
    """Write RGB frames as an H.264 mp4 file with the settings of a segment; the same frames give the same bytes.

    Args:
        frames: arrays frame_HWC, uint8, all of one size; odd sizes lose a pixel row or column by scaling.
        path: file to write.
        fps: frames a second.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("frames must hold at least one frame, got none")
    height, width = first.shape[:2]
    with open(path, "wb") as file, _H264Writer(file, _even_size(height, width), Fraction(fps)) as writer:
        for frame_HWC in chain([first], frames):
            if frame_HWC.shape != first.shape:
                raise ValueError(f"frames must all have the shape {first.shape}, got {frame_HWC.shape}")
            writer.write(VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24"))


class _H264Writer:
    """Frames of any size and format into an mp4 file of one size, at a constant frame rate."""

    def __init__(self, file: IO[bytes], size: tuple[int, int], fps: Fraction) -> None:
        self.num_frames = 0
        self._height, self._width = size
        # mp4 and x264 count time in 32 bits.
        self._fps = fps.limit_denominator(10_000)
        self._reformatter = VideoReformatter()
        self._container = av.open(file, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._fps, options=_X264_OPTIONS)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1

    def __enter__(self) -> "_H264Writer":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exc_type is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def write(self, frame: VideoFrame) -> None:
        if self.num_frames == 0:
            # The decoder of the segment must turn YUV into RGB as the decoder of the source does.
            self._stream.codec_context.colorspace = frame.colorspace
            self._stream.codec_context.color_range = ColorRange.MPEG
        converted = self._reformatter.reformat(
            frame,
            self._width,
            self._height,
            "yuv420p",
            interpolation=Interpolation.BICUBIC,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        converted.pts = self.num_frames
        converted.time_base = 1 / self._fps
        converted.pict_type = PictureType.NONE  # or the encoder would copy the source's choice of key frames
        self._container.mux(self._stream.encode(converted))
        self.num_frames += 1


def _encode_interval(
    source: VideoSource, short_side: int, start: float, end: float, max_segment_seconds: float | None
) -> Iterator[EncodedSegment]:
    with open_video(source) as video:
        numbered = _frames_between(video, start, end)
        piece_frames = None if max_segment_seconds is None else max(1, int(max_segment_seconds * video.fps))
        num_segments = 0
        for number, first in numbered:
            yield _encode_piece(video, chain([(number, first)], numbered), short_side, piece_frames)
            num_segments += 1
        if not num_segments:
            raise VideoError(f"zero frames between {start} s and {end} s")


def _encode_piece(
    video: OpenVideo, numbered: Iterator[tuple[int, VideoFrame]], short_side: int, max_frames: int | None
) -> EncodedSegment:
    """Encode the next `max_frames` frames (None: all) as one segment."""
    start_frame, frame = next(numbered)
    rotation = frame.rotation
    height, width = _stored_size(*displayed_size(video.height, video.width, rotation_degrees=rotation), short_side)
    file = io.BytesIO()
    with _H264Writer(file, (height, width), video.fps) as writer:
        writer.write(_upright_frame(frame, rotation))
        while writer.num_frames != max_frames and (following := next(numbered, None)) is not None:
            writer.write(_upright_frame(following[1], rotation))
    segment = EncodedSegment(file.getvalue(), writer.num_frames, float(video.fps), height, width, start_frame)
    _verify(segment)
    return segment


def _frames_between(video: OpenVideo, start: float, end: float) -> Iterator[tuple[int, VideoFrame]]:
    """(index, frame) of the frames shown from `start` on and before `end`, in seconds after the first frame."""
    first_seconds: float | None = None
    has_started = False
    for index, frame in enumerate(iterate_frames(video, is_strict=True)):
        own_seconds = index / float(video.fps) if frame.time is None else frame.time
        first_seconds = own_seconds if first_seconds is None else first_seconds
        seconds = own_seconds - first_seconds
        # Once begun, a segment has no holes even where time stamps go back and forth (AVI).
        has_started = has_started or seconds >= start
        if seconds >= end:
            return
        if has_started:
            yield index, frame


def _upright_frame(frame: VideoFrame, rotation_degrees: int) -> VideoFrame:
    if rotation_degrees == 0:
        return frame
    turned = upright(rgb_view(frame.reformat(format="rgb24", threads=1)), rotation_degrees=rotation_degrees)
    return VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="rgb24")


def _stored_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    if min(height, width) > short_side:
        height, width = resized_size(height, width, short_side=short_side)
    return _even_size(height, width)


def _even_size(height: int, width: int) -> tuple[int, int]:
    """Rounded down to even, as 4:2:0 colour needs; never up, so that no video grows."""
    if min(height, width) < 2:
        raise VideoError(f"picture size {width}x{height} is below 2x2 pixels")
    return height // 2 * 2, width // 2 * 2


def _verify(segment: EncodedSegment) -> None:
    with open_video(segment.data) as video:
        num_packets = sum(packet.size > 0 for packet in video.container.demux(video.stream))
    if num_packets != segment.num_frames:
        raise VideoError(f"encoding failed: {num_packets} of {segment.num_frames} frames were written")
