"""A packet goes in, the number of frames that it shows comes out, by its first and last bytes, without decoding.

A VP9 encoder puts a frame that is only referred to into the packet of the next shown one (a superframe); a VP8 encoder
gives it a packet of its own. A bit of each frame's header tells:

    VP8 packet   [P shown] [golden, hidden] [P shown]              1 0 1 frames
    VP9 packet   [P shown] [hidden + P shown + index]              1 1   frames

Source: RFC 6386 9.1 (VP8); VP9 bitstream specification 6.2, annex B; AV1 specification 7.5 (one shown frame a packet).
"""

from collections.abc import Callable

from av.packet import Packet

# Readers of shards seek in fewer codecs (`decoding.PACKET_IS_FRAME_CODECS`), whose copies are made for it.
_ONE_PACKET_ONE_FRAME = {"h264", "hevc", "mjpeg", "av1", "mpeg1video", "mpeg2video"}
_VP9_INDEX_MARKER, _VP9_FRAME_MARKER = 0b110, 0b10


def frame_counter(codec: str, *, is_intra_only: bool) -> Callable[[Packet], int | None]:
    """Choose how to count the frames that a packet of this codec shows.

    Args:
        codec: canonical name, such as "vp9".
        is_intra_only: every packet is a picture of its own.

    Returns:
        A function of a packet: 0, 1 or more; None where only decoding shows it.
    """
    if codec in _ONE_PACKET_ONE_FRAME or is_intra_only:
        return lambda packet: 1
    if codec == "vp8":
        return lambda packet: _count_vp8(bytes(packet))
    if codec == "vp9":
        return lambda packet: _count_vp9(bytes(packet))
    return lambda packet: None


def _count_vp8(data: bytes) -> int:
    return data[0] >> 4 & 1


def _count_vp9(data: bytes) -> int | None:
    """Shown frames of a superframe, or of the one frame that the packet is."""
    marker = data[-1]
    num_frames, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index_bytes = 2 + num_frames * size_bytes
    if marker >> 5 != _VP9_INDEX_MARKER or len(data) < index_bytes or data[-index_bytes] != marker:
        return _is_shown_vp9(data[:1])
    sizes = [
        int.from_bytes(data[place : place + size_bytes], "little")
        for place in range(len(data) - index_bytes + 1, len(data) - 1, size_bytes)
    ]
    starts = [sum(sizes[:number]) for number in range(num_frames)]
    if not all(sizes) or sum(sizes) > len(data) - index_bytes:
        return None
    shown = [_is_shown_vp9(data[start : start + 1]) for start in starts]
    return None if None in shown else sum(filter(None, shown))


def _is_shown_vp9(head: bytes) -> int | None:
    """1 or 0 by the first bits: marker (2), profile (2, or 3 for profile 3), show_existing, frame_type, show_frame."""
    bits = f"{head[0]:08b}"
    if int(bits[:2], 2) != _VP9_FRAME_MARKER:
        return None
    shift = 1 if bits[2:4] == "11" else 0
    show_existing, show_frame = bits[4 + shift], bits[6 + shift]
    return int(show_existing == "1" or show_frame == "1")
