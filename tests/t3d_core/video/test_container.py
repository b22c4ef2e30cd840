"""Untrusted files are opened, or refused with one reason; nothing stays open, no address is called."""

import os
from pathlib import Path

import numpy as np
import pytest

from t3d_core.video import container, decoding
from t3d_core.video.container import VideoError
from t3d_core.video.decoding import decode_frames, probe


def test_metadata_that_is_not_utf8_does_no_harm(encode):
    data = encode("matroska", metadata={"title": "Caf\xe9"})
    assert b"Caf\xe9" in data
    assert probe(data).num_frames == 60


@pytest.mark.heavy
@pytest.mark.parametrize("fraction", [0.35, 0.6, 0.9])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
def test_a_file_cut_off_has_the_frames_that_can_be_decoded(container, fraction, encode, decode_plainly):
    movflags = {"movflags": "faststart"} if container == "mp4" else None  # header first, or nothing is left
    # Noise-free frames are tiny; many key frames spread the bytes evenly over the file.
    options = {} if container == "avi" else {"x264-params": "keyint=4"}
    codec = "mpeg4" if container == "avi" else "libx264"
    whole = encode(container, codec, options=options, container_options=movflags, size=(144, 176))
    data = whole[: int(len(whole) * fraction)]
    num_frames = probe(data).num_frames
    assert 0 < num_frames < 60
    frames = decode_frames(data, range(num_frames))
    np.testing.assert_array_equal(frames[: num_frames - 1], decode_plainly(whole)[: num_frames - 1])
    with pytest.raises(ValueError, match="frame_indices"):
        decode_frames(data, [num_frames])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not a video at all" * 1000, "not a video"),
        (np.random.default_rng(0).bytes(40_000), "not a video"),
    ],
)
def test_files_that_are_no_video_say_so(content, reason, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(content)
    for source in (content, tmp_path / "clip.mp4"):
        for read in (probe, lambda source: decode_frames(source, [0])):
            with pytest.raises(VideoError, match=reason):
                read(source)


def test_audio_alone_is_no_video(encode_audio):
    with pytest.raises(VideoError, match="no video stream"):
        probe(encode_audio())


def test_a_video_without_frames_says_so(encode):
    data = encode(container_options={"movflags": "faststart"})
    header = data[: data.index(b"mdat") + 4]
    for read in (probe, lambda source: decode_frames(source, [0])):
        with pytest.raises(VideoError, match="zero frames"):
            read(header)


def test_what_cannot_be_read_says_so(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, reason in [
        (tmp_path / "absent.mp4", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.mp4", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ]:
        with pytest.raises(VideoError, match=reason):
            probe(path)


@pytest.mark.parametrize(
    "script",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
    ],
)
def test_a_playlist_in_disguise_is_not_followed(script, tmp_path, encode):
    (tmp_path / "secret.mp4").write_bytes(encode())
    for name, target in [("a.mp4", "secret.mp4"), ("b.m3u8", tmp_path / "secret.mp4"), ("c.mp4", "http://127.0.0.1/")]:
        (tmp_path / name).write_text(script.format(target))
        for source in (tmp_path / name, (tmp_path / name).read_bytes()):
            with pytest.raises(VideoError, match="not a video"):
                probe(source)


def test_an_address_is_not_opened():
    with pytest.raises(VideoError, match="No such file"):
        probe("http://127.0.0.1:1/clip.mp4")


def test_a_picture_too_large_is_refused_before_decoding(encode, monkeypatch):
    monkeypatch.setattr(container, "MAX_FRAME_PIXELS", 64 * 46 - 1)
    monkeypatch.setattr(decoding, "iterate_frames", lambda *_: pytest.fail("decoded"))
    with pytest.raises(VideoError, match="picture size 64x46"):
        probe(encode())


def test_no_file_stays_open_whatever_happens(tmp_path, encode):
    (tmp_path / "good.mp4").write_bytes(encode())
    (tmp_path / "bad.mp4").write_bytes(encode()[:900])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        probe(tmp_path / "good.mp4")
        decode_frames(tmp_path / "good.mp4", [1, 9])
        with pytest.raises(VideoError):
            probe(tmp_path / "bad.mp4")
    assert len(os.listdir("/proc/self/fd")) == before
