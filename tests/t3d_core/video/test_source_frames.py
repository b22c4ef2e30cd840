import numpy as np
import pytest

from t3d_core.video import source_frames
from t3d_core.video.container import VideoError
from t3d_core.video.source_frames import SourceReader, decoded_seconds, list_packets

EVERY_25 = {"x264-params": "keyint=25:min-keyint=25:scenecut=0"}
OPEN_GROUPS = {"x265-params": "log-level=none:keyint=25:min-keyint=25:open-gop=1"}


@pytest.fixture
def num_decoded(monkeypatch):
    """Packets that were given to the decoder: one list entry a place where reading began."""
    counts: list[int] = []
    whole_packets = source_frames.whole_packets

    def counting(video, **options):
        counts.append(0)
        for packet in whole_packets(video, **options):
            counts[-1] += packet.size > 0
            yield packet

    def begin():
        monkeypatch.setattr(source_frames, "whole_packets", counting)
        return counts

    return begin


def pixels(items) -> np.ndarray:
    return np.stack([item.frame.to_ndarray(format="rgb24", threads=1) for item in items])


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "libx264", EVERY_25),
        ("matroska", "libx264", EVERY_25),
        ("matroska", "libx265", OPEN_GROUPS),
        ("webm", "libvpx", {"g": "25"}),
        ("webm", "libvpx-vp9", {"g": "25"}),
        ("mp4", "libvpx-vp9", {"g": "25"}),
        ("matroska", "libsvtav1", {"g": "25"}),
        ("mp4", "libsvtav1", {"g": "25"}),
        ("mov", "prores", {}),
        ("mpegts", "libx264", EVERY_25),
        ("mpegts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("flv", "libx264", EVERY_25),
        ("matroska", "mjpeg", {}),
    ],
)
def test_a_late_range_is_read_from_the_key_frame_before_it(
    container, codec, options, encode, decode_plainly, num_decoded
):
    pix_fmt = {"prores": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    data = encode(container, codec, num_frames=80, options=options, pix_fmt=pix_fmt, size=(96, 128))
    table, counts = list_packets(data), num_decoded()
    with SourceReader(data, table) as reader:
        items = list(reader.frames(60, 70))
    assert [item.frame_index for item in items] == list(range(60, 70))
    assert np.array_equal(pixels(items), decode_plainly(data)[60:70])
    # From key frame 50, or in a file without an index from the one before; some packets wait for reordering.
    assert sum(counts) <= 70 - (50 if container in ("mp4", "mov", "matroska", "webm") else 25) + 7


def test_a_late_range_is_the_same_where_a_seek_lands_behind_it(encode, decode_plainly):
    data = encode("mpeg", "mpeg2video", num_frames=80, options={"g": "12", "bf": "2"})
    table = list_packets(data)
    with SourceReader(data, table) as reader:
        items = list(reader.frames(60, 70))
    assert len(table.pts) == len(decode_plainly(data))
    assert np.array_equal(pixels(items), decode_plainly(data)[60:70])


def test_ranges_that_follow_each_other_are_decoded_once(encode, num_decoded):
    data = encode(num_frames=80, options=EVERY_25)
    table, counts = list_packets(data), num_decoded()
    with SourceReader(data, table) as reader:
        read = [[item.frame_index for item in reader.frames(first, first + 10)] for first in range(0, 80, 10)]
    assert read == [list(range(first, first + 10)) for first in range(0, 80, 10)]
    assert sum(counts) == 80


@pytest.mark.parametrize(("container", "codec"), [("avi", "mpeg4"), ("asf", "wmv2"), ("mp4", "mpeg4")])
def test_where_packets_do_not_tell_the_frames_reading_begins_at_the_start(
    container, codec, encode, decode_plainly, num_decoded
):
    data = encode(container, codec, num_frames=80)
    table, counts = list_packets(data), num_decoded()
    assert table.seconds is None
    with SourceReader(data, table) as reader:
        items = list(reader.frames(60, 62))
    assert [item.frame_index for item in items] == [60, 61]
    assert np.array_equal(pixels(items), decode_plainly(data)[60:62])
    assert sum(counts) >= 62


def test_damage_before_the_range_does_not_matter_and_inside_it_does(encode):
    data = bytearray(encode(num_frames=80, options=EVERY_25, size=(144, 176)))
    table = list_packets(bytes(data))
    entries = packet_places(bytes(data))
    for number in (5, 6, 7):  # destroy pictures of the first group
        place, size = entries[number]
        data[place + 4 : place + size] = bytes(size - 4)
    with SourceReader(bytes(data), table) as reader:
        assert [item.frame_index for item in reader.frames(30, 40)] == list(range(30, 40))
    with pytest.raises(VideoError, match="corrupt"), SourceReader(bytes(data), table) as reader:
        list(reader.frames(0, 20))


def test_a_listing_ends_where_the_file_is_cut_off(encode):
    data = encode(num_frames=80, options=EVERY_25, size=(144, 176), container_options={"movflags": "faststart"})
    whole, cut = list_packets(data), list_packets(data[: len(data) * 2 // 3])
    assert whole.is_whole
    assert whole.num_packets == 80
    assert whole.key_indices.tolist() == [0, 25, 50, 75]
    assert not cut.is_whole
    assert 20 < cut.num_packets < 80


def packet_places(data: bytes) -> list[tuple[int, int]]:
    with source_frames.open_video(data) as video:
        return [(packet.pos, packet.size) for packet in video.container.demux(video.stream) if packet.size]


def test_a_clock_begins_where_the_file_begins(encode):
    table = list_packets(encode(pts=[50 + 2 * k for k in range(30)], num_frames=30))
    assert np.allclose(table.seconds, np.arange(30) * 2 / 25)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("flv", "libx264"), ("mp4", "mpeg4")],
)
def test_a_picture_that_begins_after_the_sound_is_late_on_the_clock(container, codec, encode_tracks, video_track):
    data = encode_tracks(container, video_track(codec=codec, start_seconds=2.0), audio_seconds=4.0)
    listed, decoded = list_packets(data).seconds, decoded_seconds(data, end_seconds=99)
    assert decoded == pytest.approx(2 + np.arange(25) / 25, abs=0.1)  # a container may delay the sound a little
    if listed is not None:
        assert listed == pytest.approx(decoded, abs=1e-6)


def test_the_decoders_delay_in_an_avi_is_no_late_picture(encode):
    seconds = decoded_seconds(encode("avi", "mpeg4", options={"bf": "2"}), end_seconds=99)
    assert seconds[0] == 0


def test_a_file_that_does_not_seek_as_its_packets_say_is_decoded_from_its_start(encode, decode_plainly):
    data = encode(num_frames=80, options=EVERY_25)
    table = list_packets(data)
    wrong = table._replace(pts=np.concatenate([table.pts[:50], table.pts[50:] + 1]))
    with SourceReader(data, wrong) as reader:
        items = list(reader.frames(60, 65))
    assert [item.frame_index for item in items] == [60, 61, 62, 63, 64]
    assert np.array_equal(pixels(items), decode_plainly(data)[60:65])
