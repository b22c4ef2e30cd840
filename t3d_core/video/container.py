"""Untrusted video files are opened: which stream is the video, where it starts, its packets and frames."""

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from t3d_core.errors import UserError

VideoSource = str | os.PathLike[str] | bytes
MAX_FRAME_PIXELS = 8192 * 8192
# Containers that hold their own media. Playlists and scripts (hls, concat, dash, image2 ...) are absent: a downloaded
# "video" must never make us open other files or addresses.
_CONTAINER_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,dv,mxf,nut,ivf,wtv,rm,yuv4mpegpipe,h264,hevc,m4v,mpegvideo"
)
_MATROSKA_HEAD_BYTES = 4096
# Pictures of a file, not its video: covers, and thumbnails for a seek bar.
_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails
# Of a file with several video streams, how far is read to see what they hold.
_MAX_TRIAL_PACKETS = 1000
_MICROSECONDS = 1_000_000


class VideoError(UserError):
    """A video that cannot be used; the message is a short reason for the table of failures."""


class EmptyIntervalError(VideoError):
    """The video can be decoded, but none of it is in the wanted interval."""


class OpenVideo(NamedTuple):
    """An open file and its video stream.

    Attributes:
        container: PyAV's.
        stream: the one that is read.
        height: pixels before rotation.
        width: pixels before rotation.
        fps: average frames a second as the header states it, exact; None where it states none.
        start_seconds: where the clock of the file begins: the time stamp, in seconds, that players show as 0.
        source: what was opened.
        note: why this stream, where there are several; else empty.
    """

    container: InputContainer
    stream: VideoStream
    height: int
    width: int
    fps: Fraction | None
    start_seconds: float
    source: VideoSource
    note: str = ""


@contextmanager
def open_video(source: VideoSource) -> Iterator[OpenVideo]:
    """Open an untrusted file for reading and close it again; every reading error inside becomes a VideoError."""
    av.logging.set_level(None)  # FFmpeg's log callback takes Python's lock: deadlocks were seen (PyAV#2276, #751)
    try:
        with _open_container(source) as container:
            yield _select_stream(container, source)
    except av.FFmpegError as error:
        raise VideoError(f"corrupt or unreadable: {error.strerror}") from error
    except OSError as error:
        raise VideoError(f"unreadable: {error.strerror}") from error


def stated_seconds(source: VideoSource) -> float | None:
    """Read the length that the header of a file states, without decoding; None where it states none. It may lie.

    Raises:
        VideoError: the file cannot be opened, or is no video.
    """
    with open_video(source) as video:
        stream = video.stream
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return None if video.container.duration is None else video.container.duration / _MICROSECONDS


def iterate_frames(video: OpenVideo, *, is_strict: bool = False) -> Iterator[VideoFrame]:
    """Decode from the start, in presentation order.

    Args:
        video: a freshly opened video.
        is_strict: raise VideoError at the first damage or loss; otherwise damaged packets give no frame, as in ffmpeg.
    """
    for packet in whole_packets(video) if is_strict else video.container.demux(video.stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if is_strict:
                raise
            continue
        yield from frames


def whole_packets(video: OpenVideo, *, is_from_start: bool = True) -> Iterator[Packet]:
    """Packets in file order; VideoError at the first damage, or if a file read from its start is truncated."""
    num_packets = 0
    for packet in video.container.demux(video.stream):
        if packet.is_corrupt:
            is_stream = "mpegts" in video.container.format.name
            cure = " (recordings that were joined: `ffmpeg -i FILE -c copy NEW.mp4`)" if is_stream else ""
            raise VideoError(f"corrupt or truncated: packet {num_packets} is damaged{cure}")
        num_packets += packet.size > 0 or packet.dts is not None  # an empty sample is one, the final flush is none
        yield packet
    if not is_from_start:
        return
    # Only this container's index is known to count what the file really holds (edit lists, as of trims, taken out).
    num_listed = len(video.stream.index_entries) if "mov" in video.container.format.name else 0
    if num_packets < num_listed:
        raise VideoError(f"truncated: {num_packets} of {num_listed} frames are in the file")
    if num_missing_bytes := _num_missing_bytes(video):
        raise VideoError(f"truncated: {num_missing_bytes} bytes are missing at the end of the file")


def _open_container(source: VideoSource) -> InputContainer:
    options = {"format_whitelist": _CONTAINER_FORMATS, "protocol_whitelist": "file"}
    file: str | io.BytesIO
    if isinstance(source, bytes):
        file, num_bytes = io.BytesIO(source), len(source)
        options["protocol_whitelist"] = ""
    else:
        # An absolute path cannot be mistaken for an address ("http:...", "concat:...").
        file = os.path.abspath(source)
        num_bytes = os.stat(file).st_size
        if not os.path.isfile(file):
            raise VideoError("unreadable: not a regular file")
    if num_bytes == 0:
        raise VideoError("empty file: 0 bytes")
    try:
        return av.open(file, "r", container_options=options, metadata_errors="replace")
    except (av.ArgumentError, av.InvalidDataError) as error:
        raise VideoError("not a video: no supported container format, or its header is corrupt") from error


def _num_missing_bytes(video: OpenVideo) -> int:
    """Bytes between the end of a Matroska file and the one that its header states (an interrupted download).

    The file is two elements, each an identifier of four bytes, a length and content: the EBML header, and the segment,
    which is all the rest. A live recording states no length (all bits set).
    """
    if "matroska" not in video.container.format.name:
        return 0
    if isinstance(video.source, bytes):
        head = video.source[:_MATROSKA_HEAD_BYTES]
    else:
        with open(video.source, "rb") as file:
            head = file.read(_MATROSKA_HEAD_BYTES)
    end = 0
    for identifier in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        if head[end : end + 4] != identifier or not (first := head[end + 4 : end + 5].ljust(1, b"\0")[0]):
            return 0
        length_bytes = 9 - first.bit_length()  # as many leading zero bits as bytes follow the first
        mask = (1 << 7 * length_bytes) - 1
        length = int.from_bytes(head[end + 4 : end + 4 + length_bytes]) & mask
        if length == mask:
            return 0
        end += 4 + length_bytes + length
    return max(0, end - video.container.size)


def _select_stream(container: InputContainer, source: VideoSource) -> OpenVideo:
    """The video of the file, set to decode in this thread only (Ray runs one task a core)."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _NO_VIDEO]
    if not streams:
        raise VideoError("no video stream")
    stream = streams[0] if len(streams) == 1 else _best_stream(streams, source)
    if stream.codec_context is None:
        raise VideoError("its codec is unknown or has no decoder")
    height, width = stream.height, stream.width
    if not _is_decodable(stream):
        raise VideoError(f"picture size {width}x{height} is not in 1..{MAX_FRAME_PIXELS} pixels")
    _prepare_decoder(stream)
    rate = stream.average_rate or stream.guessed_rate
    start_seconds = (container.start_time or 0) / _MICROSECONDS
    note = f"stream {stream.index}, {width}x{height}, taken of {len(streams)} video streams" if len(streams) > 1 else ""
    return OpenVideo(container, stream, height, width, Fraction(rate) if rate else None, start_seconds, source, note)


def _best_stream(streams: Sequence[VideoStream], source: VideoSource) -> VideoStream:
    """FFmpeg's choice: one flagged as default, moving pictures before a still, large pictures before small ones.

    A stream of which nothing can be decoded comes last, whatever its flags.
    """
    num_frames = _count_first_frames([stream.index for stream in streams], source)

    def rank(stream: VideoStream) -> tuple[bool, bool, bool, int]:
        count, is_default = num_frames[stream.index], bool(stream.disposition & Disposition.default)
        return count > 0, is_default, count > 1, stream.height * stream.width if count else 0

    return max(streams, key=rank)  # the first of equals


def _count_first_frames(indices: Sequence[int], source: VideoSource) -> Counter[int]:
    """By index of a stream, how many frames its first packets give: 0, 1, or 2 for more."""
    num_frames: Counter[int] = Counter()
    with _open_container(source) as container:
        streams = [stream for stream in container.streams.video if stream.index in indices and _is_decodable(stream)]
        for stream in streams:
            _prepare_decoder(stream)
        for packet in islice(container.demux(streams), _MAX_TRIAL_PACKETS) if streams else ():
            index = packet.stream.index
            with suppress(av.InvalidDataError):
                num_frames[index] = min(2, num_frames[index] + len(packet.decode()))
            if all(num_frames[stream.index] > 1 for stream in streams):
                break
    return num_frames


def _is_decodable(stream: VideoStream) -> bool:
    return stream.codec_context is not None and 0 < stream.height * stream.width <= MAX_FRAME_PIXELS


def _prepare_decoder(stream: VideoStream) -> None:
    stream.thread_type = ThreadType.NONE
    stream.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # the size may change on the way
