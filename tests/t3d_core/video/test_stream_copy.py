import numpy as np
import pytest

from t3d_core.video import stream_copy
from t3d_core.video.container import VideoError
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.segment_ranges import SegmentRequest
from t3d_core.video.source_frames import list_packets
from t3d_core.video.storage import encode_segments
from t3d_core.video.stream_copy import CopyError, is_cheap_to_read

SMALL_GROUPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"}
OPEN_GROUPS = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}
B_FRAMES = {"bf": "2", "g": "12"}
SOURCES = {
    "h264 in mp4": ("mp4", "libx264", SMALL_GROUPS),
    "h264 in matroska": ("matroska", "libx264", SMALL_GROUPS),
    "h264 in mpegts": ("mpegts", "libx264", SMALL_GROUPS),
    "h264 with open groups": ("mp4", "libx264", OPEN_GROUPS),
    "mpeg4 in avi": ("avi", "mpeg4", {"g": "12"}),
    "mpeg4 with b-frames in avi": ("avi", "mpeg4", B_FRAMES),
    "mpeg4 with b-frames in mp4": ("mp4", "mpeg4", B_FRAMES),
    "mpeg2 in mpegts": ("mpegts", "mpeg2video", B_FRAMES),
    "mpeg2 in mpeg": ("mpeg", "mpeg2video", B_FRAMES),
    "vp9 in webm": ("webm", "libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp8 in webm": ("webm", "libvpx", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "jpeg in avi": ("avi", "mjpeg", {}),
}
REAL_CLIPS = [
    "single_clips/demo.mp4",
    "ucf101_mixed/BabyCrawling/v_BabyCrawling_g18_c06.avi",  # time stamps out of order
    "ucf101_mixed/Biking/v_Biking_g10_c02.avi",
    "weizmann6/jack/ira_jack.avi",
]


def copies(source, **interval):
    return list(encode_segments(source, encoding="copy", short_side=256, **interval))


def assert_is_part_of(segment, source_THWC):
    stored = decode_frames(segment.data, segment.frame_offset + np.arange(segment.num_frames))
    assert np.array_equal(stored, source_THWC[segment.start_frame : segment.start_frame + segment.num_frames])


@pytest.fixture(scope="module")
def drawn(encode):
    def make(kind: str) -> bytes:
        container, codec, options = SOURCES[kind]
        return encode(container, codec, options=options, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")

    return make


@pytest.mark.parametrize("kind", SOURCES)
def test_a_copy_gives_the_very_pixels_of_the_source(kind, drawn, decode_plainly):
    data = drawn(kind)
    [segment] = copies(data)
    assert (segment.encoding, segment.num_frames, segment.frame_offset) == ("copy", 60, 0)
    assert_is_part_of(segment, decode_plainly(data))
    assert copies(data) == [segment]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_copied_interval_begins_at_a_key_frame_and_tells_its_offset(kind, drawn, decode_plainly):
    data = drawn(kind)
    [segment] = copies(data, start_seconds=1.2, end_seconds=2.0)
    assert (segment.start_frame, segment.num_frames) == (30, 20)
    assert 0 <= segment.frame_offset < 30
    assert_is_part_of(segment, decode_plainly(data))


@pytest.mark.heavy
@pytest.mark.parametrize("name", REAL_CLIPS)
def test_real_clips_are_copied_bit_for_bit(name, real_clip, decode_plainly):
    path = real_clip(name)
    frames_THWC = decode_plainly(path)
    for segment in copies(path, max_segment_seconds=1.5, num_random_segments=2, seed=3):
        assert_is_part_of(segment, frames_THWC)
    [whole] = copies(path)
    assert_is_part_of(whole, frames_THWC)
    assert whole.num_frames == len(frames_THWC)
    assert len(whole.data) <= 1.05 * path.stat().st_size


@pytest.mark.parametrize("name", ["single_clips/demo.mp4", "single_clips/gop235_340x256.mp4"])
def test_real_clips_with_key_frames_far_apart_are_no_good_as_copies(name, real_clip):
    table = list_packets(real_clip(name))
    assert not is_cheap_to_read(table, SegmentRequest().frame_ranges(None, fps=25))
    # The first two seconds alone are: they lie close behind a key frame.
    assert is_cheap_to_read(table, SegmentRequest(end_seconds=2.0).frame_ranges(table.seconds, fps=25))


def test_pieces_of_a_copied_video_tile_it(drawn, decode_plainly):
    data = drawn("h264 with open groups")
    pieces = copies(data, max_segment_seconds=0.8)
    assert [(p.start_frame, p.num_frames, p.frame_offset) for p in pieces] == [(0, 20, 0), (20, 20, 8), (40, 20, 4)]
    for piece in pieces:
        assert_is_part_of(piece, decode_plainly(data))


def test_a_rotated_video_is_copied_with_its_rotation(encode, decode_plainly):
    data = encode(rotation=90, num_frames=20)
    [segment] = copies(data)
    assert (segment.height, segment.width) == (64, 46)
    assert probe(segment.data).rotation_degrees == 90
    assert np.array_equal(decode_frames(segment.data, range(20)), decode_frames(data, range(20)))


def test_a_copy_with_other_pixels_is_refused_and_automatically_re_encoded(drawn, monkeypatch):
    data = drawn("mpeg4 in avi")
    mux = stream_copy._mux
    monkeypatch.setattr(stream_copy, "_mux", lambda stream, packets, fps: mux(stream, packets[:30] + packets[31:], fps))
    with pytest.raises(CopyError, match="frames differ"):
        copies(data)
    [segment] = encode_segments(data, short_side=256)
    assert (segment.encoding, segment.num_frames) == ("h264", 60)


def test_only_the_pieces_that_cannot_be_copied_are_re_encoded(drawn, monkeypatch):
    data = drawn("mpeg4 in avi")
    mux = stream_copy._mux
    calls = iter(range(9))

    def failing(stream, packets, fps):
        if next(calls) == 1:
            raise ValueError("invented")
        return mux(stream, packets, fps)

    monkeypatch.setattr(stream_copy, "_mux", failing)
    pieces = list(encode_segments(data, short_side=256, max_segment_seconds=0.8))
    assert [(p.encoding, p.start_frame, p.num_frames) for p in pieces] == [
        ("copy", 0, 20),
        ("h264", 20, 20),
        ("h264", 40, 20),
    ]


def test_a_damaged_video_is_not_copied(encode):
    data = encode("avi", "mpeg4", size=(144, 176))
    with pytest.raises(VideoError):
        copies(data[: len(data) // 2])
