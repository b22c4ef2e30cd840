import io
import struct

import av
import pytest

from t3d_core.video.packet_frames import frame_counter

# First bytes of VP9 frames: marker 10, profile 00, show_existing_frame, frame_type, show_frame, error_resilient.
HIDDEN, SHOWN, SHOWN_AGAIN = b"\x84picture", b"\x86picture", b"\x88"
# The same of profile 3, whose header has a bit more in front of show_existing_frame.
HIDDEN_PROFILE_3, SHOWN_PROFILE_3 = b"\xb2picture", b"\xb3picture"


def superframe(*frames: bytes) -> bytes:
    marker = bytes([0b110_01_000 | len(frames) - 1])  # sizes of two bytes
    return b"".join(frames) + marker + struct.pack(f"<{len(frames)}H", *map(len, frames)) + marker


@pytest.mark.parametrize(
    ("codec", "data", "expected"),
    [
        ("vp9", SHOWN, 1),
        ("vp9", HIDDEN, 0),
        ("vp9", SHOWN_AGAIN, 1),
        ("vp9", SHOWN_PROFILE_3, 1),
        ("vp9", HIDDEN_PROFILE_3, 0),
        ("vp9", superframe(HIDDEN, SHOWN), 1),
        ("vp9", superframe(HIDDEN, HIDDEN, SHOWN_AGAIN), 1),
        ("vp9", superframe(SHOWN, SHOWN), 2),
        ("vp9", superframe(HIDDEN, b"no frame"), None),
        ("vp9", superframe(HIDDEN, SHOWN)[5:], None),  # its sizes do not fit
        ("vp9", b"\x00\x01\x02", None),
        ("vp8", b"\x10\x02\x00\x9d", 1),
        ("vp8", b"\x01\x02\x00", 0),
        ("h264", b"\x00\x00\x01", 1),
        ("av1", b"\x12\x00", 1),
        ("mpeg4", b"\x00\x00\x01", None),
    ],
)
def test_the_frames_that_a_packet_shows_are_counted_by_its_header_bits(codec, data, expected):
    assert frame_counter(codec, is_intra_only=False)(av.Packet(data)) == expected


def test_a_codec_without_references_has_a_frame_in_every_packet():
    assert frame_counter("prores", is_intra_only=True)(av.Packet(b"\x00\x00\x01")) == 1


@pytest.mark.parametrize(("encoder", "codec"), [("libvpx", "vp8"), ("libvpx-vp9", "vp9"), ("libsvtav1", "av1")])
def test_real_packets_are_counted_as_the_decoder_gives_their_frames(encoder, codec, encode):
    data = encode("matroska", encoder, num_frames=60, size=(96, 128))
    count = frame_counter(codec, is_intra_only=False)
    with av.open(io.BytesIO(data)) as container:
        counts = [count(packet) for packet in container.demux(video=0) if packet.size]
    with av.open(io.BytesIO(data)) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
    assert sum(counts) == num_frames == 60
