"""A source file and a range of frame numbers go in, those frames come out, decoded from the nearest place possible.

Where the packets show which frames there are (the codecs of `packet_frames`, except in AVI), reading begins at the key
frame before the range, and what lies outside of it is neither decoded nor checked:

    frame     0 ........ 250 ........ 500 ........ 750        K key frame
              K          K     first  K    stop    K
    decoded              ------------------->

Every other source is decoded from its start. Both number a frame by its place in a full decode. Damage inside is a
VideoError. Nothing here loops or allocates by what a header claims.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame

from t3d_core.video.container import (
    MAX_FRAME_PIXELS,
    OpenVideo,
    VideoError,
    VideoSource,
    iterate_frames,
    open_video,
    whole_packets,
)
from t3d_core.video.decoding import PACKET_IS_FRAME_CODECS, TIMESTAMPED_CONTAINERS
from t3d_core.video.packet_frames import frame_counter

# Containers whose packets carry time stamps that can be sought; frames are compared with the stamps all the same.
_SEEKABLE_CONTAINERS = TIMESTAMPED_CONTAINERS | {"mpegts", "mpeg", "flv", "nut"}
_CONTAINERS_WITHOUT_TIMES = {"avi", "mpegvideo", "m4v", "h264", "hevc"}


class PacketTable(NamedTuple):
    """What the packets of a source show without decoding.

    Attributes:
        codec: name of the decoder, such as "h264".
        fps: average frames a second as the header states it, exact; None where it states none.
        height: pixels before rotation.
        width: pixels before rotation.
        num_packets: packets listed.
        key_numbers: places of the key packets among them, in file order.
        seconds: when each frame is shown on the clock of the file, ascending; None where only decoding shows it.
        key_indices: frame numbers of the key frames, ascending; empty where `seconds` is None.
        pts: time stamps of the frames in ticks of the stream; empty where `seconds` is None.
        is_whole: the file is not truncated, as far as its packets show.
        is_seekable_as_copy: `decode_frames` finds key frames in a copy of these packets, and need not read it from its
            start.
        has_times: the container stores when frames are shown.
        packet_seconds: times of the packets that show something, in file order; empty where one has none.
        notes: what is doubtful about the file, a sentence each.
    """

    codec: str
    fps: Fraction | None
    height: int
    width: int
    num_packets: int
    key_numbers: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64] | None
    key_indices: npt.NDArray[np.int64]
    pts: npt.NDArray[np.int64]
    is_whole: bool
    is_seekable_as_copy: bool
    has_times: bool
    packet_seconds: npt.NDArray[np.float64]
    notes: tuple[str, ...]


class SourceFrame(NamedTuple):
    """A decoded frame, its number in a full decode and the place of its packet among those of the reader."""

    frame_index: int
    frame: VideoFrame
    packet_number: int | None


class SourceReader:
    """Reads ranges of frames of one source, in ascending order; a context manager.

    Args:
        source: path, or the bytes of an encoded file.
        table: what `list_packets` gave for it.
        keeps_packets: hold the packets from the key frame before the range on, for a stream copy.
    """

    video: OpenVideo
    _frames: Iterator[SourceFrame]

    def __init__(self, source: VideoSource, table: PacketTable, *, keeps_packets: bool = False) -> None:
        self._source, self._table, self._keeps_packets = source, table, keeps_packets
        self._stack = ExitStack()
        self._packets: deque[tuple[int, Packet]] = deque()
        self._key_frames: deque[tuple[int, int]] = deque()  # (frame number, packet number), ascending
        self._first = 0
        self._next_index = 0

    def __enter__(self) -> "SourceReader":
        self._reopen()
        self._frames, self._is_from_start = self._decode_from_start(), True
        return self

    def __exit__(self, *exception: object) -> bool | None:
        return self._stack.__exit__(*exception)  # type: ignore[arg-type]

    def frames(self, first: int, stop: int | None) -> Iterator[SourceFrame]:
        """Frames [first, stop), fewer where the video ends before; stop None reads to the end."""
        self._first = first
        self._drop_packets()
        self._seek()
        while (stop is None or self._next_index < stop) and (item := self._next_frame()) is not None:
            self._next_index = item.frame_index + 1
            if item.frame_index >= first:
                yield item

    def packets_from_key(self, last_number: int) -> list[Packet]:
        """Packets from the last key frame at or before the range begun, up to number `last_number`, in file order."""
        return [packet for number, packet in self._packets if number <= last_number]

    def _reopen(self) -> None:
        self._stack.close()
        self._packets.clear()
        self._key_frames.clear()
        self.video = self._stack.enter_context(open_video(self._source))
        self.video.stream.codec_context.copy_opaque = self._keeps_packets

    def _seek(self) -> None:
        """Continue at the key frame before `first` if that skips anything and the file matches its packets."""
        keys, pts = self._table.key_indices, self._table.pts
        place = int(np.searchsorted(keys, self._first, side="right")) - 1
        key_index = int(keys[place]) if place >= 0 else 0
        if key_index <= self._next_index or self._first >= len(pts):
            return
        self._reopen()
        # Without an index in the file a seek may land behind its goal: the key frame before is near enough.
        goal = key_index if _names_of(self.video) & TIMESTAMPED_CONTAINERS else int(keys[max(0, place - 1)])
        self.video.container.seek(int(pts[goal]), stream=self.video.stream)
        self._frames, self._is_from_start = self._decode_from_key(key_index), False

    def _next_frame(self) -> SourceFrame | None:
        """The next frame; a file that does not match its packets after a seek is decoded from its start instead."""
        try:
            return next(self._frames, None)
        except (VideoError, av.InvalidDataError):
            if self._is_from_start:
                raise
        self._reopen()
        self._frames, self._is_from_start = self._decode_from_start(), True
        return next((item for item in self._frames if item.frame_index >= self._next_index), None)

    def _decode_from_start(self) -> Iterator[SourceFrame]:
        for index, frame in enumerate(self._decode(whole_packets(self.video))):
            yield self._numbered(index, frame)

    def _decode_from_key(self, key_index: int) -> Iterator[SourceFrame]:
        """Frames from a key frame to the last one; VideoError where one of them is missing."""
        expected, pts = key_index, self._table.pts
        for frame in self._decode(whole_packets(self.video, is_from_start=False)):
            if frame.pts is not None and frame.pts < pts[key_index]:
                continue  # shown before the key frame: needs frames that were not read
            if expected >= len(pts) or frame.pts != pts[expected]:
                raise VideoError(f"corrupt: frame {expected} cannot be decoded")
            yield self._numbered(expected, frame)
            expected += 1
        if expected < len(pts):
            raise VideoError(f"corrupt: frame {expected} cannot be decoded")

    def _decode(self, packets: Iterator[Packet]) -> Iterator[VideoFrame]:
        for number, packet in enumerate(packets):
            if self._keeps_packets and packet.size:
                packet.opaque = (number, packet.is_keyframe)
                self._packets.append((number, packet))
            for frame in packet.decode():
                if frame.width * frame.height > MAX_FRAME_PIXELS:
                    raise VideoError(f"picture size {frame.width}x{frame.height} is above {MAX_FRAME_PIXELS} pixels")
                yield frame

    def _numbered(self, index: int, frame: VideoFrame) -> SourceFrame:
        if not self._keeps_packets or frame.opaque is None:
            return SourceFrame(index, frame, None)
        number, is_key_packet = cast(tuple[int, bool], frame.opaque)
        if frame.key_frame and is_key_packet:
            self._key_frames.append((index, number))
            if index <= self._first:
                self._drop_packets()
        return SourceFrame(index, frame, number)

    def _drop_packets(self) -> None:
        """Forget the packets before the last key frame at or before `first`."""
        while len(self._key_frames) > 1 and self._key_frames[1][0] <= self._first:
            self._key_frames.popleft()
        while self._key_frames and self._packets and self._packets[0][0] < self._key_frames[0][1]:
            self._packets.popleft()


class _Listed(NamedTuple):
    """A packet: its time stamp, the frames that it shows (None: unknown), and what the container says of it."""

    stamp: int | None
    num_shown: int | None
    is_key: bool
    is_discard: bool


def list_packets(source: VideoSource) -> PacketTable:
    """List a source's packets up to the first damage; only the first frame is decoded."""
    with open_video(source) as video:
        listed, is_whole = _read_packets(video)
        is_jumping = _is_jumping(listed)
        pts = np.empty(0, np.int64) if is_jumping else _presentation_stamps(video, listed)
        codec, tick_seconds = video.stream.codec_context.name, float(video.stream.time_base or 0)
        is_timestamped, has_times = bool(_names_of(video) & TIMESTAMPED_CONTAINERS), not _has_made_up_times(video)
    if len(pts) and not _begins_at(source, int(pts[0])):
        pts = pts[:0]  # the decoder drops what it cannot begin with: fewer frames than packets
    key_stamps = [packet.stamp for packet in listed if packet.is_key and packet.num_shown] if len(pts) else []
    return PacketTable(
        codec=codec,
        fps=video.fps,
        height=video.height,
        width=video.width,
        num_packets=len(listed),
        key_numbers=np.flatnonzero(np.array([packet.is_key for packet in listed], np.bool_)),
        seconds=pts.astype(np.float64) * tick_seconds - video.start_seconds if len(pts) else None,
        key_indices=np.sort(np.searchsorted(pts, np.array(key_stamps, np.int64))),
        pts=pts,
        is_whole=is_whole,
        is_seekable_as_copy=is_timestamped and codec in PACKET_IS_FRAME_CODECS and len(pts) > 0,
        has_times=has_times,
        packet_seconds=np.empty(0) if is_jumping else _packet_seconds(listed, tick_seconds),
        notes=tuple(filter(None, (video.note, "its time stamps jump" if is_jumping else ""))),
    )


def _begins_at(source: VideoSource, stamp: int) -> bool:
    """Whether the first frame of a decode has this time stamp."""
    with open_video(source) as video:
        frame = next(iterate_frames(video), None)
    return frame is not None and frame.pts == stamp


def _read_packets(video: OpenVideo) -> tuple[list[_Listed], bool]:
    """All packets up to the first damage, and whether there is none."""
    codec = video.stream.codec_context.codec
    count_shown = frame_counter(codec.canonical_name, is_intra_only=codec.intra_only)
    listed = []
    try:
        for packet in whole_packets(video):
            if packet.size:
                listed.append(_Listed(packet.pts, count_shown(packet), packet.is_keyframe, packet.is_discard))
    except (av.FFmpegError, VideoError):
        return listed, False
    return listed, True


def decoded_seconds(source: VideoSource, *, end_seconds: float) -> npt.NDArray[np.float64]:
    """When each frame is shown on the clock of the file, by decoding up to the first one at or after `end_seconds`."""
    seconds: list[float] = []
    with open_video(source) as video:
        start_seconds: float | None = None if _has_made_up_times(video) else video.start_seconds
        frame_seconds = 1 / float(video.fps or 1)
        for packet in whole_packets(video):
            for frame in packet.decode():
                if frame.time is None:  # it follows the frame before
                    seconds.append(seconds[-1] + frame_seconds if seconds else 0.0)
                else:
                    if start_seconds is None:
                        start_seconds = frame.time - _start_of_stream(video)
                    seconds.append(frame.time - start_seconds)
                if seconds[-1] >= end_seconds:
                    return np.array(seconds)
    return np.array(seconds)


def _has_made_up_times(video: OpenVideo) -> bool:
    """AVI and raw streams store no times: FFmpeg counts packets, and the decoder's delay makes the first frame late."""
    return bool(_names_of(video) & _CONTAINERS_WITHOUT_TIMES)


def _start_of_stream(video: OpenVideo) -> float:
    stream = video.stream
    return (stream.start_time or 0) * float(stream.time_base or 0) - video.start_seconds


def _names_of(video: OpenVideo) -> set[str]:
    return set(video.container.format.name.split(","))


def _presentation_stamps(video: OpenVideo, listed: list[_Listed]) -> npt.NDArray[np.int64]:
    """Sorted time stamps, one a frame, if reading can begin at any key frame; else nothing."""
    nothing = np.empty(0, np.int64)
    if not _names_of(video) & _SEEKABLE_CONTAINERS or not listed or not listed[0].is_key:
        return nothing
    if any(packet.is_discard or packet.num_shown not in (0, 1) for packet in listed):
        return nothing
    shown = [packet.stamp for packet in listed if packet.num_shown]
    known = [stamp for stamp in shown if stamp is not None]
    if not known or len(known) < len(shown):
        return nothing
    pts = np.unique(np.array(known, np.int64))
    return pts if len(pts) == len(known) and pts[0] == known[0] else nothing


def _is_jumping(listed: list[_Listed]) -> bool:
    """Whether the clock is set anew inside the file, as in recordings that were joined.

    Pictures in front of a key frame may follow it in the file, but none of them is shown before the last key frame.
    """
    last_key: int | None = None
    earliest: int | None = None
    for packet in listed:
        if packet.stamp is None:
            continue
        if earliest is not None and packet.stamp < earliest:
            return True
        if packet.is_key:
            if last_key is not None and packet.stamp <= last_key:
                return True
            last_key, earliest = packet.stamp, last_key
    return False


def _packet_seconds(listed: list[_Listed], tick_seconds: float) -> npt.NDArray[np.float64]:
    """Times of the packets that show something, in file order; nothing where one has none."""
    shown = [packet.stamp for packet in listed if packet.num_shown != 0]
    known = [stamp for stamp in shown if stamp is not None]
    return np.array(known if len(known) == len(shown) else [], np.float64) * tick_seconds
