"""The packets of a stretch of video go in, a file that holds them unchanged comes out, proved to give the same pixels.

A copy begins at the last key frame at or before its first frame; what lies between is its `frame_offset`:

    source     ... K . . . . . . first . . . . stop ...
    copy           K . . . . . . first . . . .            frame_offset = 7

Packets do not show what a decoder makes of them (open groups, packed B-frames, frames that repeat), so every copy is
decoded in full and each picture compared with that of the source; a copy that differs anywhere is none.
"""

import io
import zlib
from collections.abc import Iterable
from fractions import Fraction
from itertools import takewhile
from typing import NamedTuple

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from t3d_core.video.container import VideoError, iterate_frames, open_video
from t3d_core.video.conversion import converted_once, rotation_of
from t3d_core.video.segment_ranges import FrameRanges
from t3d_core.video.source_frames import PacketTable, SourceFrame, SourceReader, list_packets

# mp4 where it takes the codec; Matroska takes all.
_MP4_CODECS = {"h264", "hevc", "mpeg4", "mjpeg"}

# A copy is cheap to read if a random sample (32 frames, stride 2) comes at 0.4 or more of the rate of our own H.264.
# Measured on one core, 340x256 H.264 by key frame distance: 12: 0.50, 32: 0.47, 64: 0.40, 128: 0.35, 235: 0.25; 320x240
# MPEG-4, read from its start, by frames: 140: 1.2, 160: 1.0, 402: 0.73. VP9 of 100 frames: 0.39.
_MAX_KEY_DISTANCE_FRAMES = 64
_MAX_FRAMES_FROM_START = 600
_LIGHT_CODECS = {"mpeg4", "mpeg1video", "mpeg2video", "mjpeg"}


class CopyError(VideoError):
    """The video cannot be copied exactly; it may well be re-encoded."""


class StreamCopy(NamedTuple):
    """A copied stretch: a file, its frames before the first wanted one, and the wanted ones."""

    data: bytes
    frame_offset: int
    num_frames: int


def is_cheap_to_read(table: PacketTable, ranges: FrameRanges) -> bool:
    """Whether windows of copies of these ranges are reached without decoding much."""
    pieces = takewhile(lambda piece: piece[0] < table.num_packets, ranges.pieces())
    return all(_is_cheap_piece(table, first, table.num_packets if stop is None else stop) for first, stop in pieces)


def _is_cheap_piece(table: PacketTable, first: int, stop: int) -> bool:
    is_seekable = table.is_seekable_as_copy
    # Without seeking, packets stand for frames: off by the reordering, which is enough for a choice.
    keys = table.key_indices if is_seekable else table.key_numbers
    place = int(np.searchsorted(keys, first, side="right")) - 1
    begin, stop = int(keys[place]) if place >= 0 else 0, min(stop, table.num_packets)
    if not is_seekable:
        is_light = table.codec in _LIGHT_CODECS
        return stop - begin <= (_MAX_FRAMES_FROM_START if is_light else _MAX_KEY_DISTANCE_FRAMES)
    inner = keys[place + 1 : np.searchsorted(keys, stop)]
    return int(np.diff([begin, *inner, stop]).max()) <= _MAX_KEY_DISTANCE_FRAMES


def copy_stretch(reader: SourceReader, frames: Iterable[SourceFrame], *, fps: Fraction) -> StreamCopy:
    """Copy the packets of frames that are being read in order; at least one frame.

    Args:
        reader: keeps the packets.
        frames: that it reads.
        fps: frames a second, for the times of packets without any.

    Raises:
        CopyError: the container does not take the codec, or the copy gives other pixels.
        VideoError: the source is damaged.
    """
    fingerprints: list[int] = []
    last_number, size, rotation = 0, (0, 0), 0
    for item in frames:
        if item.packet_number is None:
            raise CopyError("copy: the decoder does not report which packet holds a frame")
        if not fingerprints:
            size, rotation = (item.frame.height, item.frame.width), rotation_of(item.frame)
        if (item.frame.height, item.frame.width) != size:
            raise CopyError("copy: the picture changes its size")
        fingerprints.append(_fingerprint(item.frame))
        last_number = max(last_number, item.packet_number)
    packets = reader.packets_from_key(last_number)
    try:
        data = _mux(reader.video.stream, packets, fps)
    except (av.FFmpegError, ValueError) as error:
        raise CopyError(f"copy: the packets cannot be written: {error}") from error
    return StreamCopy(data, _matching_offset(data, fingerprints, rotation), len(fingerprints))


def _mux(stream: VideoStream, packets: list[Packet], fps: Fraction) -> bytes:
    """Write packets as a file; times count from the first one, and are made up where the source has none."""
    codec = stream.codec_context.name
    file = io.BytesIO()
    container = "mp4" if codec in _MP4_CODECS else "matroska"
    begin = None if any(packet.pts is None for packet in packets) else packets[0].pts
    with av.open(file, "w", format=container, container_options={"fflags": "+bitexact"}) as output:
        target = output.add_stream_from_template(stream)
        for number, packet in enumerate(packets):
            copy = Packet(bytes(packet))
            copy.is_keyframe = packet.is_keyframe
            if begin is None or packet.pts is None:
                copy.time_base, copy.pts, copy.dts = 1 / fps, number, number
            elif packet.pts < begin:
                continue  # shown before the key frame: would need frames that are not copied
            else:
                copy.time_base, copy.pts = packet.time_base, packet.pts - begin
                copy.dts = None if packet.dts is None else packet.dts - begin
            copy.duration = packet.duration if packet.duration and begin is not None else _frame_ticks(copy, fps)
            copy.stream = target
            output.mux(copy)
    return file.getvalue()


def _frame_ticks(packet: Packet, fps: Fraction) -> int:
    """Duration of a frame in the packet's time base: without one, mp4 would leave out the last frame."""
    return max(1, round(1 / (fps * Fraction(packet.time_base))))


def _matching_offset(data: bytes, fingerprints: list[int], rotation_degrees: int) -> int:
    """Where the pictures of the source lie in a full decode of the copy; CopyError where they do not."""
    try:
        with open_video(data) as video:
            pictures = converted_once(iterate_frames(video, is_strict=True))
            frames = [(_fingerprint(picture), picture.pts, rotation_of(picture)) for picture in pictures]
        table = list_packets(data)
    except CopyError:
        raise
    except VideoError as error:
        raise CopyError(f"copy: cannot be decoded: {error}") from error
    # Readers find frames by the packets' times where these can be trusted.
    if table.is_seekable_as_copy and table.pts.tolist() != [pts for _, pts, _ in frames]:
        raise CopyError("copy: its packets do not determine its frames")
    if frames and frames[0][2] != rotation_degrees:
        raise CopyError("copy: the container does not keep the rotation")
    copied = [fingerprint for fingerprint, _, _ in frames]
    for offset in range(len(copied) - len(fingerprints) + 1):
        if copied[offset] == fingerprints[0] and copied[offset : offset + len(fingerprints)] == fingerprints:
            return offset
    raise CopyError("copy: its frames differ from those of the source")


def _fingerprint(frame: VideoFrame) -> int:
    """Checksum of a picture's size, format and pixels as the decoder gave them (rows of planes are padded)."""
    components = frame.format.components
    if len(components) != len(frame.planes):
        raise CopyError(f"copy: pictures in the format {frame.format.name} cannot be compared")
    checksum = zlib.crc32(f"{frame.format.name} {frame.width}x{frame.height}".encode())
    for plane, component in zip(frame.planes, components, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        num_bytes = plane.width * -(-component.bits // 8)
        checksum = zlib.crc32(np.ascontiguousarray(rows[: plane.height, :num_bytes]).data, checksum)
    return checksum
