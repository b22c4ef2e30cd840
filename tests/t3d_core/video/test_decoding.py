import io
import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t3d_core.video import decoding
from t3d_core.video.container import VideoError
from t3d_core.video.cropping import Crop
from t3d_core.video.decoding import FrameView, VideoInfo, decode_frames, decode_views, is_steady, probe

SINGLE_CLIPS = ["abseiling_k400.mp4", "demo.mp4", "flipping_a_pancake.mkv", "gop235_340x256.mp4", "nasa_13013.mp4"]
UNORDERED_AVI = "ucf101_mixed/BabyCrawling/v_BabyCrawling_g18_c06.avi"  # time stamps 1, 2, 4, 3, 5 ...
LOST_FRAME_AVI = "ucf101_mixed/Kayaking/v_Kayaking_g12_c03.avi"  # 372 packets, 371 frames
REAL_CLIPS = [f"single_clips/{name}" for name in SINGLE_CLIPS] + [
    "weizmann6/bend/daria_bend.avi",
    UNORDERED_AVI,
    LOST_FRAME_AVI,
]
MADE_FILES = {
    "odd sizes in mpeg4": {"container": "avi", "codec": "mpeg4", "size": (47, 63)},
    "odd sizes uncompressed": {"container": "avi", "codec": "rawvideo", "size": (47, 63), "pix_fmt": "bgr24"},
    "transport stream without a frame count": {"container": "mpegts"},
    "matroska without a frame count": {"container": "matroska"},
    "vp8 with packets that show nothing": {
        "container": "webm",
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "open groups of pictures": {
        "container": "matroska",
        "options": {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal"},
    },
    "intra refresh without key frames": {
        "container": "matroska",
        "options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"},
    },
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12:bframes=3"}},
    "variable frame rate": {"pts": [k * (k + 3) // 2 for k in range(60)]},
    "one frame": {"num_frames": 1},
}


@pytest.fixture(scope="session")
def real_reference(real_clip, decode_plainly):
    cache = {}

    def load(name):
        path = real_clip(name)
        if name not in cache:
            cache.clear()  # one decoded clip is 80 MB
            cache[name] = decode_plainly(path)
        return path, cache[name]

    return load


@pytest.mark.heavy
@pytest.mark.parametrize("name", REAL_CLIPS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_frames_of_real_clips_equal_those_of_a_full_decode(name, data, real_reference):
    path, frames = real_reference(name)
    indices = data.draw(st.lists(st.integers(0, len(frames) - 1), min_size=1, max_size=8))
    assert np.array_equal(decode_frames(path, indices), frames[indices])


@pytest.mark.heavy
@pytest.mark.parametrize("name", [f"single_clips/{name}" for name in SINGLE_CLIPS])
def test_strided_clips_are_found_by_seeking_alone(name, real_reference, monkeypatch):
    path, frames = real_reference(name)
    monkeypatch.setattr(decoding, "_decode_from_start", lambda *_, **__: pytest.fail("decoded from the start"))
    for start in (0, 1, 101, len(frames) - 63):
        indices = np.arange(start, start + 63, 2)
        assert np.array_equal(decode_frames(path, indices), frames[indices])


@pytest.mark.heavy
@pytest.mark.parametrize("name", REAL_CLIPS)
def test_probing_real_clips_counts_the_frames_of_a_full_decode(name, real_reference):
    path, frames = real_reference(name)
    info = probe(path)
    assert (info.num_frames, info.height, info.width) == frames.shape[:3]


@pytest.mark.parametrize("name", MADE_FILES)
def test_unusual_files_give_the_frames_of_a_full_decode(name, encode, decode_plainly):
    data = encode(**MADE_FILES[name])
    frames = decode_plainly(data)
    indices = np.random.default_rng(0).integers(len(frames), size=20)
    info = probe(data)
    assert (info.num_frames, info.height, info.width) == frames.shape[:3]
    assert info.num_frames == MADE_FILES[name].get("num_frames", 60)
    assert np.array_equal(decode_frames(data, indices), frames[indices])


def test_unwanted_frames_that_no_other_needs_are_not_decoded(encode, monkeypatch):
    data = encode(options={"x264-params": "bframes=1:b-adapt=0:keyint=32:scenecut=0:weightp=0"})
    decoded = []
    decode_group = decoding._decode_group

    def counting(*args):
        for frame in decode_group(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decoding, "_decode_group", counting)
    decode_frames(data, range(0, 24, 2))
    assert len(decoded) == 12


def test_what_is_known_of_a_steady_file_spares_listing_its_packets(encode, monkeypatch):
    data = encode(
        options={"x264-params": "bframes=1:b-adapt=0:keyint=32:min-keyint=32:scenecut=0:weightp=0"}, num_frames=90
    )
    assert is_steady(data, key_distance=32)
    expected = decode_frames(data, [70, 3, 31, 32, 89])
    monkeypatch.setattr(decoding, "_index_packets", lambda _: pytest.fail("listed"))
    assert np.array_equal(decode_frames(data, [70, 3, 31, 32, 89], key_distance=32), expected)


def test_a_wrong_key_distance_and_changing_rates_are_not_called_steady(encode, decode_plainly):
    data = encode(options={"x264-params": "keyint=32:min-keyint=32:scenecut=0"})
    assert not is_steady(data, key_distance=30)
    assert not is_steady(encode(pts=[k * (k + 3) // 2 for k in range(60)]), key_distance=250)
    assert not is_steady(encode("avi", "mpeg4"), key_distance=12)
    # Even so no other frame comes out than the one that was asked for.
    assert np.array_equal(decode_frames(data, [45], key_distance=30), decode_plainly(data)[[45]])


def test_a_path_and_its_bytes_give_the_same(tmp_path, encode):
    data = encode()
    (tmp_path / "clip.mp4").write_bytes(data)
    assert probe(tmp_path / "clip.mp4") == probe(str(tmp_path / "clip.mp4")) == probe(data)
    assert np.array_equal(decode_frames(tmp_path / "clip.mp4", [3, 1]), decode_frames(data, [3, 1]))


def test_probe_tells_what_the_file_holds(encode):
    assert probe(encode()) == VideoInfo(60, 25.0, 46, 64, 0, "h264")


def test_scaling_while_decoding_keeps_the_picture(encode, decode_plainly):
    data = encode()
    scaled = decode_frames(data, [7], size=(23, 32))
    assert scaled.shape == (1, 23, 32, 3)
    blocks = decode_plainly(data)[7].reshape(23, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(scaled[0] - blocks).mean() < 4


@pytest.mark.parametrize(("rotation", "quarter_turns"), [(90, 1), (-90, 3), (180, 2)])
def test_rotated_recordings_come_out_upright(rotation, quarter_turns, encode, decode_plainly):
    data = encode(rotation=rotation)
    stored = decode_plainly(data)[[40, 2]]
    expected = np.rot90(stored, quarter_turns, axes=(1, 2))
    info = probe(data)
    assert (info.height, info.width) == expected.shape[1:3]
    assert abs(info.rotation_degrees) == abs(rotation)
    assert np.array_equal(decode_frames(data, [40, 2]), expected)


def test_a_size_asked_of_a_rotated_recording_is_the_displayed_one(encode):
    upright = decode_frames(encode(rotation=90), [5], size=(32, 23))[0]
    assert upright.shape == (32, 23, 3)
    assert upright[20:, :8, 1].mean() > 150 > 100 > upright[:12, 12:, 1].mean()


@pytest.mark.parametrize("indices", [[60], [0, 1000], [-1], [], [[1, 2]], [0.5]])
@pytest.mark.parametrize("container", ["mp4", "mpegts"])
def test_indices_outside_the_video_are_the_caller_s_error(container, indices, encode):
    with pytest.raises(ValueError, match="frame_indices must be") as raised:
        decode_frames(encode(container), indices)
    assert not isinstance(raised.value, VideoError)


def test_damage_inside_a_group_is_an_error_and_never_another_frame(encode):
    data = bytearray(encode(size=(144, 176), options={"x264-params": "keyint=60:bframes=0", "crf": "10"}))
    with av.open(io.BytesIO(bytes(data))) as container:
        packet = [p for p in container.demux(video=0) if p.size][30]
    data[packet.pos : packet.pos + packet.size] = bytes([0xFF]) * packet.size
    with pytest.raises(VideoError, match="corrupt"):
        decode_frames(bytes(data), [30])


def test_decoding_starts_no_threads(tmp_path, encode):
    (tmp_path / "clip.mp4").write_bytes(encode(size=(288, 352)))
    program = (
        "import os, sys; from t3d_core.video.decoding import decode_frames; decode_frames(sys.argv[1], [0]);"
        "n = lambda: len(os.listdir('/proc/self/task')); a = n(); decode_frames(sys.argv[1], range(60), size=(64, 80));"
        "print(n() - a)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "clip.mp4"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("matrix", "is_upside_down"),
    [([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], False), ([65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], True)],
)
def test_a_mirrored_recording_comes_out_upright(matrix, is_upside_down, encode):
    data = encode(display_matrix=matrix, num_frames=3)
    greens = decode_frames(data, [1])[0, :, :, 1].astype(int)  # the block is drawn in the upper half
    assert (greens[23:].sum() > greens[:23].sum()) == is_upside_down
    assert probe(data).rotation_degrees % 360 == (180 if is_upside_down else 0)


def test_what_several_viewers_see_is_decoded_once_and_is_what_each_would_see_alone(encode, monkeypatch):
    source = encode()
    views = [
        FrameView([3, 5, 7, 9], size=(23, 32), crop=Crop(2, 3, 20)),
        FrameView([9, 4, 4]),
        FrameView([30], size=(92, 128)),
    ]
    alone = [decode_frames(source, v.frame_indices, size=v.size, crop=v.crop) for v in views]
    opened = []
    open_video = decoding.open_video
    monkeypatch.setattr(decoding, "open_video", lambda source: opened.append(source) or open_video(source))
    together = decode_views(source, views)
    assert len(opened) == 1
    for seen, expected in zip(together, alone, strict=True):
        assert np.array_equal(seen, expected)
