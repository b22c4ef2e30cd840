"""A video file (or its bytes) and frame indices go in, exactly those frames come out as uint8 RGB (paper 4.4).

A training sample is 32 frames over a span of 63 (paper Table 6): what makes it fast is not to touch the rest of the
file. Where the container carries true time stamps, the packets are listed, the key frame before the wanted ones is
sought, and non-reference frames that nobody wants are not decoded. Everywhere else the file is decoded from its
start; both ways give the same frames. Shape letters: T frames, H height, W width, C = 3 colours.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from t3d_core.errors import UserError
from t3d_core.video.container import OpenVideo, VideoError, VideoSource, iterate_frames, open_video
from t3d_core.video.conversion import FrameConverter, displayed_size, rotation_of
from t3d_core.video.cropping import Crop
from t3d_core.video.frame_rate import believed_rate

# Where a list of packets shows what a decoder will give: these containers store a presentation time for every packet,
# and in these codecs a packet is a frame. AVI invents times (UCF101's own files come out of order), VP8 has packets
# that show nothing, MPEG-4 has packets that repeat a frame.
TIMESTAMPED_CONTAINERS = {"mov", "matroska"}
PACKET_IS_FRAME_CODECS = {"h264", "hevc", "mjpeg"}


ZERO_FRAMES = "zero frames: nothing in the video stream can be decoded"
NO_FRAME_RATE = "no frame rate: its header states none, and its frames have no time stamps"


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, as displayed (after its rotation).

    Attributes:
        num_frames: frames that a full decode gives.
        fps: average frames a second, by the time stamps where the header disagrees with them.
        height: pixels.
        width: pixels.
        rotation_degrees: counter-clockwise turn that the file asks for; decoded frames are already upright.
        codec: name of the decoder, such as "h264".
    """

    num_frames: int
    fps: float
    height: int
    width: int
    rotation_degrees: int
    codec: str


def probe(source: VideoSource) -> VideoInfo:
    """Read what a video holds; `num_frames` is what a full decode gives.

    H.264, HEVC and JPEG in mp4 and Matroska are counted by their packets, without decoding: there, a frame whose data
    are damaged still counts. All others (AVI, MPEG-TS, files truncated inside a packet ...) are decoded, and what
    cannot be decoded is not a frame.

    Raises:
        VideoError: the file cannot be read, is no video or has no decodable frame.
    """
    with open_video(source) as video:
        index = _index_packets(video)
    with open_video(source) as video:
        frames = iterate_frames(video)
        first = next(frames, None)
        if first is None:
            raise VideoError(ZERO_FRAMES)
        stamps = index.pts.tolist() if index else [first.pts, *(frame.pts for frame in frames)]
        height, width = displayed_size(video.height, video.width, rotation_degrees=rotation_of(first))
        codec = video.stream.codec_context.name
        return VideoInfo(len(stamps), _frame_rate(video, stamps), height, width, rotation_of(first), codec)


def _frame_rate(video: OpenVideo, stamps: list[int | None]) -> float:
    known = [stamp for stamp in stamps if stamp is not None]
    seconds = np.array(known if len(known) == len(stamps) else [], np.float64) * float(video.stream.time_base or 0)
    if rate := believed_rate(video.fps, seconds):
        return float(rate)
    raise VideoError(NO_FRAME_RATE)


def decode_frames(
    source: VideoSource,
    frame_indices: Sequence[int] | npt.NDArray[np.integer],
    *,
    size: tuple[int, int] | None = None,
    crop: Crop | None = None,
    key_distance: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Decode the frames at `frame_indices`, upright, in the order asked for.

        frames   0 1 2 3 4 5 6 7 8 9      K = key frame, b = frame that no other needs
                 K b P b P b K b P b
        asked          P   P   K          decoded: 0, 2, 4, then 6; 1, 3, 5 are skipped

    Args:
        source: path, or the bytes of an encoded file.
        frame_indices: positions in presentation order, in [0, num_frames); any order, repeats allowed.
        size: (height, width) in pixels to scale to; None keeps the video's own.
        crop: square to cut out of the upright frames at that size; None keeps all. Of scaled frames only what is
            needed is scaled: their crop lies within a pixel of where `crop_frames` would have cut it.
        key_distance: frames from key frame to key frame, where `is_steady` is true; None lists the packets of the
            file to find them.

    Returns:
        frames_THWC: uint8 RGB, one row an index, decoded to the same pixels as by a full decode.

    Raises:
        UserError: an index is out of range, or the crop does not fit.
        VideoError: the file cannot be read or decoded.
    """
    [frames_THWC] = decode_views(source, [FrameView(frame_indices, size, crop)], key_distance=key_distance)
    return frames_THWC


class FrameView(NamedTuple):
    """Frames of a video and how they are to look; the fields are arguments of `decode_frames`."""

    frame_indices: Sequence[int] | npt.NDArray[np.integer]
    size: tuple[int, int] | None = None
    crop: Crop | None = None


def decode_views(
    source: VideoSource, views: Sequence[FrameView], *, key_distance: int | None = None
) -> list[npt.NDArray[np.uint8]]:
    """Decode once what several viewers see: for each view what `decode_frames` would give.

    Raises:
        UserError: as `decode_frames`.
        VideoError: as `decode_frames`.
    """
    converter = _Converters([FrameConverter(_checked_indices(i), size=size, crop=crop) for i, size, crop in views])
    with open_video(source) as video:
        index = _index_packets(video) if key_distance is None else _steady_index(video, key_distance)
        if index is not None:
            _check_range(converter, len(index.pts))
            if _decode_by_seeking(video, index, converter):
                return converter.of_views()
    with open_video(source) as video:
        # A file with an index that did not deliver may be damaged, and a lost frame would shift all later ones.
        num_frames = _decode_from_start(video, converter, is_strict=index is not None)
        if index is not None and converter.last_index >= num_frames:
            raise VideoError(f"corrupt: only {num_frames} of {len(index.pts)} frames can be decoded")
        _check_range(converter, num_frames)
    return converter.of_views()


class _Converters:
    """The converters of all views, to which a decoded frame is shown once.

    Attributes:
        wanted: the frames that any view asks for.
        last_index: the last of them.
    """

    def __init__(self, converters: Sequence[FrameConverter]) -> None:
        self._converters = converters
        self.wanted = set().union(*(converter.rows_of_index for converter in converters))
        self.last_index = max(self.wanted)

    def write(self, frame: VideoFrame, frame_index: int, *, video_size: tuple[int, int]) -> None:
        """Put a frame where it is asked for."""
        for converter in self._converters:
            if frame_index in converter.rows_of_index:
                converter.write(frame, frame_index, video_size=video_size)

    def of_views(self) -> list[npt.NDArray[np.uint8]]:
        """The frames of each view."""
        return [converter.frames_THWC for converter in self._converters]


def is_steady(source: VideoSource, *, key_distance: int) -> bool:
    """Whether `decode_frames` may be given this `key_distance`: constant frame rate, key frames at that distance."""
    with open_video(source) as video:
        steady, listed = _steady_index(video, key_distance), _index_packets(video)
    if steady is None or listed is None:
        return False
    return all(np.array_equal(*arrays) for arrays in zip(steady, listed, strict=True))


class _PacketIndex(NamedTuple):
    """Time stamps of all frames and of the key frames, both sorted, in units of the stream's time base."""

    pts: npt.NDArray[np.int64]
    key_pts: npt.NDArray[np.int64]


def _index_packets(video: OpenVideo) -> _PacketIndex | None:
    """Time stamps of all packets, or None where only a full decode shows which frames there are."""
    container_names = set(video.container.format.name.split(","))
    codec = video.stream.codec_context.name
    if not container_names & TIMESTAMPED_CONTAINERS or codec not in PACKET_IS_FRAME_CODECS:
        return None
    stamps: list[int] = []
    is_key: list[bool] = []
    for packet in video.container.demux(video.stream):
        if packet.size:
            if packet.pts is None or packet.is_corrupt or packet.is_discard:
                return None
            stamps.append(packet.pts)
            is_key.append(packet.is_keyframe)
    if not stamps or not is_key[0] or stamps[0] != min(stamps) or len(set(stamps)) != len(stamps):
        return None
    if video.stream.frames not in (0, len(stamps)):
        return None
    pts = np.array(stamps, np.int64)
    return _PacketIndex(np.sort(pts), np.sort(pts[is_key]))


def _steady_index(video: OpenVideo, key_distance: int) -> _PacketIndex | None:
    """What `_index_packets` would find in a file of constant rate; None where frames are no whole ticks apart."""
    if video.fps is None:
        return None
    ticks = 1 / (video.fps * Fraction(video.stream.time_base or 1))
    if ticks.denominator != 1:
        return None
    pts = np.arange(video.stream.frames, dtype=np.int64) * ticks.numerator
    return _PacketIndex(pts, pts[::key_distance])


def _decode_by_seeking(video: OpenVideo, index: _PacketIndex, converter: _Converters) -> bool:
    """Write the wanted frames group by key frame; False where the file does not match its packets."""
    index_of_pts = {int(index.pts[i]): i for i in converter.wanted}
    groups: dict[int, set[int]] = defaultdict(set)
    for pts in index_of_pts:
        # The last key frame SHOWN at or before the frame: frames shown before a key frame may need older ones.
        groups[int(index.key_pts[np.searchsorted(index.key_pts, pts, side="right") - 1])].add(pts)
    found: set[int] = set()
    try:
        for key_pts, wanted_pts in sorted(groups.items()):
            for frame in _decode_group(video, key_pts, wanted_pts):
                if frame.pts in wanted_pts:
                    converter.write(frame, index_of_pts[frame.pts], video_size=(video.height, video.width))
                    found.add(frame.pts)
    except av.InvalidDataError:
        return False
    return len(found) == len(index_of_pts)


def _decode_group(video: OpenVideo, key_pts: int, wanted_pts: set[int]) -> Iterator[VideoFrame]:
    """Decode from a key frame to the last wanted packet, leaving out what is neither wanted nor referred to."""
    video.container.seek(key_pts, stream=video.stream)
    context = video.stream.codec_context
    missing = set(wanted_pts)
    is_first = True
    for packet in video.container.demux(video.stream):
        if packet.pts is None or (is_first and (packet.pts > key_pts or not packet.is_keyframe)):
            return  # the end, or the seek did not land where it should: the caller decodes from the start
        is_first = False
        context.skip_frame = "DEFAULT" if packet.pts in missing else "NONREF"
        yield from packet.decode()
        missing.discard(packet.pts)
        if not missing:
            break
    yield from context.decode(None)  # what the decoder still holds back for reordering


def _decode_from_start(video: OpenVideo, converter: _Converters, *, is_strict: bool) -> int:
    """Write the wanted frames of a sequential decode; returns how many frames were seen up to the last wanted one."""
    num_frames = 0
    for frame in iterate_frames(video, is_strict=is_strict):
        if num_frames in converter.wanted:
            converter.write(frame, num_frames, video_size=(video.height, video.width))
        num_frames += 1
        if num_frames > converter.last_index:
            break
    return num_frames


def _checked_indices(frame_indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    indices = np.asarray(frame_indices)
    if indices.ndim != 1 or not len(indices) or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"frame_indices must be a non-empty 1-d sequence of integers, got {frame_indices!r}")
    if indices.min() < 0:
        raise UserError(f"frame_indices must be >= 0, got {indices.min()}")
    return indices.astype(np.int64)


def _check_range(converter: _Converters, num_frames: int) -> None:
    if num_frames == 0:
        raise VideoError(ZERO_FRAMES)
    if converter.last_index >= num_frames:
        raise UserError(f"frame_indices must be in [0, {num_frames}), the video's frames, got {converter.last_index}")
