import io
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from t3d_core.video import conversion, segment_writer
from t3d_core.video.container import EmptyIntervalError, VideoError
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.storage import encode_segments, encode_video

pytestmark = pytest.mark.heavy


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.square(first.astype(np.float64) - second).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def whole(source, short_side=256, encoding="h264", **interval):
    (segment,) = encode_segments(source, encoding=encoding, short_side=short_side, **interval)
    return segment


def frame_types(data: bytes) -> str:
    with av.open(io.BytesIO(data)) as container:
        return "".join(av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0))


@pytest.fixture(scope="module")
def real_source(real_clip):
    return real_clip("single_clips/gop235_340x256.mp4")


@pytest.fixture(scope="module")
def real_segment(real_source):
    return whole(real_source)


def test_a_stored_real_clip_has_every_frame_at_its_place_and_looks_the_same(real_source, real_segment, decode_plainly):
    source, stored = decode_plainly(real_source), decode_plainly(real_segment.data)
    assert real_segment.num_frames == len(stored) == len(source) == 300
    assert (real_segment.height, real_segment.width, real_segment.fps) == (256, 340, 30.0)
    assert min(psnr(a, b) for a, b in zip(stored[::10], source[::10], strict=True)) > 33
    assert psnr(stored[:100], source[:100]) > 35
    assert psnr(stored[:100], source[1:101]) < 25


def test_odd_frames_are_needed_by_no_other_and_key_frames_come_every_32(real_segment):
    types = frame_types(real_segment.data)
    assert {i for i, kind in enumerate(types) if kind == "I"} == set(range(0, 300, 32))
    assert all(kind != "B" for kind in types[::2])
    # The last frame of a group (and of the video) has no later frame to lean on.
    assert all(kind == "B" for i, kind in enumerate(types) if i % 2 and i % 32 != 31 and i != 299)


@pytest.mark.parametrize(("encoding", "key_distance"), [("h264", 32), ("jpeg", 1), ("copy", None)])
@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001), Fraction(24000, 1001), 12.5])
def test_what_we_encode_is_steady_at_every_usual_rate(encoding, key_distance, rate, tmp_path, drawn_frame):
    encode_video((drawn_frame(k, 64, 80) for k in range(70)), path=tmp_path / "a.mp4", fps=float(rate))
    segment = whole(tmp_path / "a.mp4", encoding=encoding)
    assert segment.key_distance == key_distance


def test_the_same_video_gives_the_same_bytes(real_source):
    assert len({whole(real_source, end_seconds=1.5).data for _ in range(3)}) == 1


def test_an_unlabelled_video_is_tiled_exactly(encode, drawn_frame):
    segments = list(encode_segments(encode(num_frames=60), encoding="h264", short_side=64, max_segment_seconds=1.0))
    assert [(s.start_frame, s.num_frames) for s in segments] == [(0, 25), (25, 25), (50, 10)]
    for segment in segments:
        frames = decode_frames(segment.data, range(segment.num_frames))
        reds = frames[:, 30:, :, 0].mean((1, 2))
        assert np.abs(reds - 3 * (segment.start_frame + np.arange(segment.num_frames))).max() < 3


def test_segments_are_made_one_at_a_time(encode):
    segments = encode_segments(encode(num_frames=60), encoding="h264", short_side=64, max_segment_seconds=0.4)
    assert next(segments).num_frames == 10
    segments.close()


def test_a_trimmed_interval_names_its_first_source_frame(encode):
    segment = whole(encode(num_frames=60), start_seconds=0.4, end_seconds=1.2)
    assert (segment.start_frame, segment.num_frames) == (10, 20)
    assert abs(decode_frames(segment.data, [0])[0, 30:, :, 0].mean() - 30) < 3


def test_an_interval_may_end_after_the_video_but_not_begin_there(encode):
    assert whole(encode(num_frames=60), start_seconds=2.0, end_seconds=99.0).num_frames == 10
    with pytest.raises(VideoError, match=r"zero frames between 3\.0 s and 9\.0 s"):
        whole(encode(num_frames=60), start_seconds=3.0, end_seconds=9.0)


def test_an_interval_of_a_variable_rate_video_follows_its_time_stamps(encode):
    pts = list(range(30)) + list(range(30, 150, 4))  # 25 fps, then 6.25
    segment = whole(encode(pts=pts), start_seconds=30 / 25, end_seconds=50 / 25)
    assert (segment.start_frame, segment.num_frames) == (30, 5)


def test_time_stamps_out_of_order_make_no_holes(real_clip, decode_plainly):
    path = real_clip("ucf101_mixed/BabyCrawling/v_BabyCrawling_g18_c06.avi")
    segment = whole(path)
    assert segment.num_frames == 180
    assert psnr(decode_plainly(segment.data)[:40], decode_plainly(path)[:40]) > 33
    trimmed = whole(path, encoding="copy", start_seconds=2.5 / 25)  # its frames are shown at 0, 1, 3, 2, 4 ... / 25 s
    assert (trimmed.start_frame, trimmed.num_frames) == (2, 178)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((46, 64), 256, (46, 64)), ((47, 63), 256, (46, 62)), ((200, 300), 64, (64, 96)), ((300, 200), 64, (96, 64))],
)
def test_large_videos_are_scaled_down_and_small_ones_kept_at_even_sizes(size, short_side, expected, encode):
    segment = whole(encode("avi", "mpeg4", size=size, num_frames=5), short_side)
    info = probe(segment.data)
    assert (segment.height, segment.width) == (info.height, info.width) == expected


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotated_recordings_are_stored_upright(rotation, encode):
    data = encode(rotation=rotation, num_frames=20)
    segment = whole(data)
    assert probe(segment.data).rotation_degrees == 0
    assert psnr(decode_frames(segment.data, [9]), decode_frames(data, [9])) > 30


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("rawvideo", "bgr24")])
def test_full_range_colours_are_kept(codec, pix_fmt, encode):
    data = encode("avi", codec, pix_fmt=pix_fmt, num_frames=20)
    assert psnr(decode_frames(whole(data).data, [9]), decode_frames(data, [9])) > 28


@pytest.mark.parametrize(
    ("container", "options"),
    [("mp4", {"movflags": "faststart"}), ("matroska", {}), ("webm", {"cluster_time_limit": "500"})],
)
@pytest.mark.parametrize("fraction", [0.4, 0.67, 0.99])
def test_a_video_cut_off_is_a_failure_and_not_a_shorter_video(container, options, fraction, encode):
    codec, codec_options = ("libvpx", {"g": "12", "deadline": "realtime"}), {"x264-params": "keyint=4"}
    form = {"codec": codec[0], "options": codec[1]} if container == "webm" else {"options": codec_options}
    data = encode(container, size=(144, 176), container_options=options, **form)
    assert whole(data).num_frames == 60
    with pytest.raises(VideoError, match=r"corrupt|truncated"):
        whole(data[: int(len(data) * fraction)])


def test_a_live_recording_that_tells_no_length_is_whole(encode):
    data = encode("matroska", container_options={"live": "1"})
    assert b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" in data
    assert whole(data).num_frames == 60


def test_a_segment_that_lost_frames_is_not_handed_out(encode, monkeypatch):
    write = segment_writer.SegmentWriter.write

    def losing(self, frame):
        if self.num_frames == 7:
            self.num_frames += 1
        else:
            write(self, frame)

    monkeypatch.setattr(segment_writer.SegmentWriter, "write", losing)
    with pytest.raises(VideoError, match="59 of 60 frames"):
        whole(encode(num_frames=60))


def test_arguments_out_of_range_are_named_at_the_call(encode):
    data = encode(num_frames=3)
    with pytest.raises(ValueError, match="short_side must be >= 2, got 0"):
        encode_segments(data, short_side=0)
    with pytest.raises(ValueError, match=r"start_seconds .* got 3\.0 and 2\.0"):
        encode_segments(data, short_side=64, start_seconds=3.0, end_seconds=2.0)
    with pytest.raises(ValueError, match="max_segment_seconds must be > 0, got 0"):
        encode_segments(data, short_side=64, max_segment_seconds=0)


def test_drawn_frames_are_written_in_order_with_the_same_bytes_each_time(tmp_path, drawn_frame):
    for name in ("a.mp4", "b.mp4"):
        encode_video((drawn_frame(k, 64, 80) for k in range(40)), path=tmp_path / name, fps=12.5)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    info = probe(tmp_path / "a.mp4")
    assert (info.num_frames, info.fps, info.height, info.width) == (40, 12.5, 64, 80)
    drawn = np.stack([drawn_frame(k, 64, 80) for k in range(40)])
    assert psnr(decode_frames(tmp_path / "a.mp4", range(40)), drawn) > 28


def test_the_decoding_process_starts_without_torch():
    code = "import sys, t3d_core.video.storage, t3d_core.video.decoding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


EVERY_12 = {"x264-params": "keyint=12:min-keyint=12:scenecut=0"}
EVERY_100 = {"x264-params": "keyint=100:min-keyint=100:scenecut=0"}


@pytest.mark.parametrize(
    ("chosen", "container", "codec", "options", "size", "num_frames"),
    [
        ("copy", "mp4", "libx264", EVERY_12, (46, 64), 120),
        ("h264", "mp4", "libx264", EVERY_100, (46, 64), 120),  # key frames far apart
        ("h264", "mp4", "libx264", EVERY_12, (80, 96), 120),  # larger than the short side
        ("copy", "avi", "mpeg4", {"g": "12"}, (46, 64), 120),
        ("h264", "avi", "mpeg4", {"g": "12"}, (46, 64), 650),  # long, and read from its start
        ("copy", "webm", "libvpx", {"g": "12", "deadline": "realtime"}, (46, 64), 60),
        ("h264", "webm", "libvpx", {"g": "12", "deadline": "realtime"}, (46, 64), 80),  # slow to decode from its start
    ],
)
def test_automatically_what_is_small_and_cheap_to_reach_is_copied(
    chosen, container, codec, options, size, num_frames, encode
):
    data = encode(container, codec, options=options, size=size, num_frames=num_frames)
    segment = whole(data, short_side=64, encoding="auto")
    assert (segment.encoding, segment.num_frames) == (chosen, num_frames)


def test_automatically_rotated_videos_are_stored_upright(encode):
    segment = whole(encode(rotation=90, num_frames=20, options=EVERY_12), encoding="auto")
    assert (segment.encoding, segment.height, segment.width) == ("h264", 64, 46)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("tennis7/serve/serve45.mp4", "copy"),  # 61 frames
        ("ucf101_mixed/BabyCrawling/v_BabyCrawling_g18_c06.avi", "copy"),
        ("weizmann6/jack/ira_jack.avi", "copy"),
        ("ps7/A1/PS7A1P3T1.avi", "h264"),  # 640x480
    ],
)
def test_automatic_choices_for_real_clips(name, chosen, real_clip):
    assert whole(real_clip(name), encoding="auto").encoding == chosen


def test_a_jpeg_segment_is_all_key_frames_and_close_to_its_source(encode, decode_plainly):
    data = encode(size=(144, 176))
    segment = whole(data, encoding="jpeg")
    assert (segment.encoding, segment.num_frames, segment.frame_offset) == ("jpeg", 60, 0)
    assert set(frame_types(segment.data)) == {"I"}
    stored = decode_frames(segment.data, [59, 3, 30])
    assert psnr(stored, decode_plainly(data)[[59, 3, 30]]) > 36
    assert whole(data, encoding="jpeg") == segment


@pytest.mark.parametrize("encoding", ["copy", "h264", "jpeg"])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("avi", "mpeg4")])
def test_random_windows_hold_the_frames_they_name(encoding, container, codec, encode):
    data = encode(container, codec, num_frames=80, size=(144, 176))
    options = {"encoding": encoding, "short_side": 256, "max_segment_seconds": 0.8, "num_random_segments": 3}
    segments = list(encode_segments(data, **options, seed=5))
    assert len(segments) == 3
    assert all(segment.encoding == encoding and 19 <= segment.num_frames <= 21 for segment in segments)
    for segment in segments:
        stored = decode_frames(segment.data, segment.frame_offset + np.arange(segment.num_frames))
        source = decode_frames(data, segment.start_frame + np.arange(segment.num_frames))
        assert psnr(stored, source) > 30
    assert list(encode_segments(data, **options, seed=5)) == segments
    places = {tuple(s.start_frame for s in encode_segments(data, **options, seed=seed)) for seed in (5, 6, [5, 1])}
    assert len(places) == 3


def test_a_video_shorter_than_a_window_is_kept_whole(encode):
    [segment] = encode_segments(encode(), short_side=64, max_segment_seconds=10.0, num_random_segments=5)
    assert (segment.start_frame, segment.num_frames) == (0, 60)


def test_time_stamps_years_apart_cost_nothing(encode):
    data = encode("matroska", pts=[*range(30), *(10**9 + k for k in range(30))])
    segments = list(encode_segments(data, short_side=64, max_segment_seconds=1.0, num_random_segments=4))
    assert 1 <= len(segments) <= 4
    assert sum(segment.num_frames for segment in segments) <= 60


@pytest.mark.parametrize("encoding", ["auto", "copy", "h264"])
def test_an_interval_before_the_damage_is_kept_and_one_across_it_refused(encoding, encode):
    data = encode(size=(144, 176), options=EVERY_12, container_options={"movflags": "faststart"})
    cut = data[: len(data) * 2 // 3]
    segment = whole(cut, encoding=encoding, start_seconds=0.6, end_seconds=1.0)
    assert (segment.start_frame, segment.num_frames) == (15, 10)
    with pytest.raises(VideoError, match=r"corrupt|truncated"):
        whole(cut, encoding=encoding, start_seconds=0.6, end_seconds=9.0)


def test_random_windows_of_a_video_cut_off_are_refused_as_the_whole_is(encode):
    data = encode(size=(144, 176), options=EVERY_12, container_options={"movflags": "faststart"})
    options = {"short_side": 256, "max_segment_seconds": 0.4, "num_random_segments": 2}
    assert len(list(encode_segments(data, **options))) == 2
    with pytest.raises(VideoError, match="truncated"):
        list(encode_segments(data[: len(data) * 2 // 3], **options))


@pytest.mark.parametrize("encoding", ["auto", "h264"])
@pytest.mark.parametrize(("begin", "num_frames"), [(0, 30), (20, 30), (20, 35)])
def test_a_trimmed_recording_has_the_frames_of_its_edit_list(begin, num_frames, encoding, encode, decode_plainly):
    data = bytearray(encode(options=EVERY_12))
    edit = data.index(b"elst") + 12
    duration, media_time = struct.unpack(">Ii", data[edit : edit + 8])
    ticks = av.open(io.BytesIO(bytes(data))).streams.video[0].time_base
    struct.pack_into(">Ii", data, edit, duration * num_frames // 60, media_time + int(begin / 25 / ticks))
    segment = whole(bytes(data), encoding=encoding)
    expected = decode_plainly(bytes(data))
    assert segment.num_frames == len(expected) < 60
    stored = decode_frames(segment.data, segment.frame_offset + np.arange(segment.num_frames))
    assert psnr(stored, expected) > 30


def test_nothing_to_decode_is_no_empty_interval(encode):
    data = encode("avi", "mpeg4", num_frames=1)
    data = data[: data.index(b"movi") + 4] + b"JUNK" + bytes(40)
    with pytest.raises(VideoError, match="zero frames") as raised:
        whole(data, start_seconds=1.0, end_seconds=2.0)
    assert not isinstance(raised.value, EmptyIntervalError)


def test_pictures_that_change_their_size_are_scaled_to_the_first_one_and_never_copied(encode):
    data = encode("mpeg", "mpeg2video", num_frames=20) + encode("mpeg", "mpeg2video", num_frames=20, size=(96, 112))
    segment = whole(data)
    assert (segment.height, segment.width) == (46, 64)
    assert segment.num_frames > 30
    with pytest.raises(VideoError):
        whole(data, encoding="copy")
    assert whole(data, encoding="auto").encoding == "h264"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "gif"}, "encoding must be one of .* got 'gif'"),
        ({"num_random_segments": 0, "max_segment_seconds": 1.0}, "num_random_segments must be >= 1, got 0"),
        ({"num_random_segments": 2}, "needs max_segment_seconds"),
        ({"num_random_segments": 2, "max_segment_seconds": 1.0, "start_seconds": 1.0}, "takes no start_seconds"),
    ],
)
def test_options_that_do_not_go_together_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        encode_segments(b"", short_side=64, **options)


def seconds_shown(segment) -> list[int]:
    """The seconds on the clock of a file of `encode_tracks`, by the grey levels of the stored frames."""
    frames_THWC = decode_frames(segment.data, np.arange(segment.num_frames) + segment.frame_offset)
    return sorted({round(level / 10) for level in frames_THWC.mean((1, 2, 3)).tolist()})


@pytest.mark.parametrize("start_seconds", [0.0, 2.0])
@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("mpegts", "libx264"), ("mp4", "mpeg4")],
)
def test_an_interval_is_taken_by_the_clock_that_players_show(
    container, codec, start_seconds, encode_tracks, video_track
):
    track = video_track(codec=codec, num_frames=200, start_seconds=start_seconds, options={"g": "25"})
    data = encode_tracks(container, track, audio_seconds=11.0)
    # A tenth of a second of tolerance, because some containers delay the picture against the sound.
    segment = whole(data, start_seconds=4.1, end_seconds=5.9)
    assert seconds_shown(segment) == [4, 5]
    assert abs(segment.start_frame - round((4.1 - start_seconds) * 25)) <= 2


def test_an_interval_before_the_first_picture_is_empty(encode_tracks, video_track):
    data = encode_tracks("mp4", video_track(start_seconds=2.0), audio_seconds=4.0)
    with pytest.raises(EmptyIntervalError, match=r"zero frames between 0\.5 s and 1\.5 s"):
        whole(data, start_seconds=0.5, end_seconds=1.5)


def test_windows_at_random_places_lie_where_the_picture_is(encode_tracks, video_track):
    data, late = (
        encode_tracks("mp4", video_track(num_frames=100, start_seconds=start), audio_seconds=9.0)
        for start in (0.0, 3.0)
    )
    options = {"short_side": 64, "max_segment_seconds": 0.5, "num_random_segments": 3, "seed": 5}
    windows = [[(s.start_frame, s.num_frames) for s in encode_segments(source, **options)] for source in (data, late)]
    assert windows[0] == windows[1]
    assert len(windows[0]) == 3


@pytest.mark.parametrize(("container", "codec"), [("webm", "libvpx"), ("matroska", "libx264"), ("matroska", "mpeg4")])
def test_a_rate_that_the_time_stamps_contradict_is_not_believed(container, codec, tmp_path, drawn_frame):
    path = tmp_path / "recording"
    with av.open(str(path), "w", format=container) as output:  # a browser: stamps in ms, 1000 frames a second stated
        stream = output.add_stream(codec, rate=1000)
        stream.height, stream.width, stream.pix_fmt = 46, 64, "yuv420p"
        for index in range(120):
            frame = av.VideoFrame.from_ndarray(drawn_frame(index, 46, 64), format="rgb24")
            frame.pts, frame.time_base = round(index * 1000 / 30), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    segments = list(encode_segments(str(path), short_side=64, max_segment_seconds=1.0))
    assert [segment.num_frames for segment in segments] == [30, 30, 30, 30]
    assert [segment.fps for segment in segments] == pytest.approx([30] * 4, rel=1e-3)
    assert segments[0].notes == ("30 frames a second by its time stamps",)
    assert probe(path).fps == pytest.approx(30, rel=1e-3)


def test_a_variable_rate_is_cut_by_time(encode):
    pts = [*range(0, 50), *range(50, 250, 4)]  # 2 s at 25 frames a second, then 8 s at 6.25
    segments = list(encode_segments(encode(pts=pts, num_frames=100), short_side=64, max_segment_seconds=2.0))
    assert [segment.num_frames for segment in segments] == [50, 13, 12, 13, 12]
    assert [segment.start_frame for segment in segments] == [0, 50, 63, 75, 88]


@pytest.mark.parametrize("encoding", ["copy", "h264", "jpeg"])
@pytest.mark.parametrize("matrix", ["YCgCo", "bt2020c", "ictcp", "chroma-derived-nc"])
def test_colours_that_the_scaler_does_not_know_are_read_by_the_default(matrix, encoding, encode, decode_plainly):
    plain = encode(num_frames=12)
    tagged = encode(num_frames=12, options={"x264-params": f"colormatrix={matrix}"})
    segment = whole(tagged, encoding=encoding)
    assert segment.notes[0].startswith("colour matrix ")
    indices = np.arange(12) + segment.frame_offset
    frames, scaled = decode_frames(segment.data, indices), decode_frames(segment.data, indices, size=(60, 90))
    assert psnr(frames, decode_plainly(plain)) > 30
    assert scaled.shape == (12, 60, 90, 3)
    assert not whole(plain, encoding=encoding).notes


def test_pictures_that_cannot_be_turned_into_rgb_are_not_prepared(encode, monkeypatch):
    monkeypatch.setattr(conversion, "_KNOWN_MATRICES", range(99))  # as if the scaler knew them all
    tagged = encode(num_frames=12, options={"x264-params": "colormatrix=YCgCo"})
    for encoding in ("copy", "auto", "jpeg"):
        with pytest.raises(VideoError, match=r"its pictures \(yuv420p\) cannot be turned into RGB"):
            whole(tagged, encoding=encoding)


def test_the_stream_that_was_chosen_is_noted(encode_tracks, video_track):
    segment = whole(encode_tracks("matroska", video_track(size=(20, 30)), video_track(size=(46, 64))))
    assert (segment.height, segment.width) == (46, 64)
    assert segment.notes == ("stream 1, 64x46, taken of 2 video streams",)


@pytest.mark.parametrize("encoding", ["copy", "h264", "jpeg"])
@pytest.mark.parametrize("matrix", ["bt709", "bt2020nc", "smpte170m"])
def test_colours_stay_whatever_matrix_the_source_is_stored_in(matrix, encoding, tmp_path, decode_plainly):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"x264-params": f"colormatrix={matrix}"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 60 + 20 * index, np.uint8), format="yuv420p")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    source, segment = decode_plainly(path), whole(str(path), encoding=encoding)
    stored = decode_frames(segment.data, np.arange(4) + segment.frame_offset)
    assert np.abs(stored.astype(int).mean((1, 2)) - source.astype(int).mean((1, 2))).max() < 4


def joined(encode, container: str) -> bytes:
    """Two recordings in one file; the clock of the second begins anew."""
    first = encode(container, "mpeg2video", num_frames=60, options={"g": "12", "bf": "2"})
    return first + encode(container, "mpeg2video", num_frames=50, options={"g": "12", "bf": "2"})


def test_a_clock_that_is_set_anew_is_noted_and_loses_no_frame(encode, decode_plainly):
    data = joined(encode, "mpeg")
    expected = decode_plainly(data)
    segments = list(encode_segments(data, encoding="h264", short_side=64, max_segment_seconds=1.0))
    assert sum(segment.num_frames for segment in segments) == len(expected)
    assert {(segment.fps, segment.notes) for segment in segments} == {(25.0, ("its time stamps jump",))}
    # The second recording may begin inside the first one's time.
    late = whole(data, encoding="h264", start_seconds=1.0, end_seconds=2.0)
    assert psnr(decode_plainly(late.data), expected[late.start_frame : late.start_frame + late.num_frames]) > 25


def test_a_joined_transport_stream_is_refused_with_the_cure(encode):
    with pytest.raises(VideoError, match=r"packet \d+ is damaged \(recordings that were joined: `ffmpeg -i FILE"):
        whole(joined(encode, "mpegts"))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("mp4", "mpeg4"), ("matroska", "mpeg4")])
def test_frames_that_are_unevenly_apart_are_cut_by_time_whatever_their_codec(container, codec, encode):
    pts = [*range(0, 100), *range(100, 600, 25), *range(600, 700)]  # 25, 1 and 25 frames a second; the mean is 7.9
    data = encode(container, codec, pts=pts, num_frames=220)
    segments = list(encode_segments(data, short_side=64, max_segment_seconds=4.0))
    assert max(segment.num_frames / segment.fps for segment in segments) < 4.5
    assert sum(segment.num_frames / segment.fps for segment in segments) == pytest.approx(28, abs=1.5)


def test_an_interval_of_a_raw_stream_is_not_late_by_the_decoders_delay(encode):
    options = {"g": "12", "bf": "2"}
    raw = whole(encode("mpeg2video", "mpeg2video", num_frames=60, options=options), start_seconds=1.0, end_seconds=2.0)
    assert (raw.start_frame, raw.num_frames) == (25, 25)


def test_frames_that_the_decoder_drops_at_the_start_do_not_count(encode, decode_plainly):
    options = {"x264-params": "intra-refresh=1:keyint=30:bframes=0"}
    data = encode("mpegts", "libx264", num_frames=100, size=(144, 176), options=options)
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        file = io.BytesIO()
        with av.open(file, "w", format="mpegts") as output:  # from the second recovery point on
            stream = output.add_stream_from_template(container.streams.video[0])
            begin = next(number for number, packet in enumerate(packets) if number > 40 and packet.is_keyframe)
            for packet in packets[begin:]:
                packet.stream = stream
                output.mux(packet)
    cut = file.getvalue()
    frames = decode_plainly(cut)
    assert len(frames) < len(packets) - begin
    segment = whole(cut, start_seconds=0.9, end_seconds=1.2)
    stored = decode_plainly(segment.data)
    assert psnr(stored, frames[segment.start_frame : segment.start_frame + len(stored)]) > 25
    with av.open(io.BytesIO(cut)) as container:
        seconds = [frame.time for frame in container.decode(video=0)]
        start = container.start_time / 1e6
    assert 0.9 <= seconds[segment.start_frame] - start < 0.95
