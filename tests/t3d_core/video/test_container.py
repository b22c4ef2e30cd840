"""Untrusted files are opened, or refused with one reason; nothing stays open, no address is called."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from av.stream import Disposition

from t3d_core.video import container, decoding
from t3d_core.video.container import VideoError, open_video
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


NONE, DEFAULT = Disposition(0), Disposition.default
STILL = {"codec": "mjpeg", "size": (60, 80), "num_frames": 1, "fps": 1}


@pytest.mark.parametrize(
    ("container", "first", "second", "number"),
    [
        ("mp4", {**STILL, "disposition": NONE}, {}, 1),
        ("matroska", {**STILL, "disposition": NONE}, {}, 1),
        ("matroska", STILL, {}, 1),  # both flagged: moving pictures before a still
        ("matroska", {**STILL, "size": (480, 640)}, {}, 1),
        ("matroska", STILL, {"disposition": NONE}, 0),  # what its maker flagged
        ("matroska", {"size": (20, 30), "disposition": NONE}, {"disposition": NONE}, 1),
        ("matroska", {"disposition": NONE}, {"size": (20, 30)}, 1),
        ("mpegts", {"size": (20, 30)}, {}, 1),
        ("avi", {"size": (20, 30), "codec": "mpeg4"}, {"codec": "mpeg4"}, 1),
        ("asf", {**STILL, "fps": 25}, {"codec": "mpeg4"}, 1),
        ("matroska", {}, {}, 0),
    ],
)
def test_of_several_video_streams_the_one_is_taken_that_players_show(
    container, first, second, number, encode_tracks, video_track
):
    tracks = video_track(**first), video_track(**second)
    with open_video(encode_tracks(container, *tracks)) as video:
        assert (video.stream.index, video.height, video.width) == (number, *tracks[number].size)
        assert f"stream {number}," in video.note


def test_a_cover_is_neither_the_video_nor_a_choice(encode_tracks, video_track):
    data = encode_tracks("mp4", video_track(**{**STILL, "disposition": Disposition.attached_pic}), video_track())
    with open_video(data) as video:  # the writer puts covers last
        assert (video.stream.index, video.height, video.note) == (0, 46, "")


def _with_chapter_pictures(data: bytes) -> bytes:
    """The mp4 file (moov last) whose second track calls the first one its chapters: thumbnails for a seek bar."""
    chapters = struct.pack(">I4sI4sI", 20, b"tref", 12, b"chap", 1)
    moov, trak = data.rindex(b"moov") - 4, data.rindex(b"trak") - 4
    end = trak + int.from_bytes(data[trak : trak + 4])
    changed = bytearray(data[:end] + chapters + data[end:])
    for box in (moov, trak):
        changed[box : box + 4] = (int.from_bytes(data[box : box + 4]) + len(chapters)).to_bytes(4)
    return bytes(changed)


def test_thumbnails_of_a_seek_bar_are_no_video(encode_tracks, video_track):
    thumbnails = video_track(codec="mjpeg", size=(60, 80), num_frames=5, fps=5)
    data = _with_chapter_pictures(encode_tracks("mp4", thumbnails, video_track()))
    with open_video(data) as video:
        assert Disposition.timed_thumbnails in video.container.streams.video[0].disposition
        assert (video.stream.index, video.note) == (1, "")


def _broken_first_stream(data: bytes, how: str) -> bytes:
    """The mp4 file with a first stream that nobody can decode."""
    broken = bytearray(data)
    entry = data.index(b"avc1", data.index(b"stsd"))
    if how == "unknown codec":
        broken[entry : entry + 4] = b"xxxx"
    elif how == "no size and no settings":
        broken[entry + 28 : entry + 32] = bytes(4)
        settings = data.index(b"avcC", entry) + 4
        broken[settings : settings + 26] = bytes(26)
    else:
        with open_video(data) as video:
            for packet in video.container.demux(video.container.streams.video[0]):
                if packet.size:
                    broken[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    return bytes(broken)


@pytest.mark.parametrize("how", ["unknown codec", "no size and no settings", "damaged packets"])
def test_a_broken_first_stream_does_not_hide_a_good_one(how, encode_tracks, video_track):
    data = _broken_first_stream(encode_tracks("mp4", video_track(size=(96, 128)), video_track()), how)
    info = probe(data)
    assert (info.num_frames, info.height, info.width) == (25, 46, 64)


def test_a_codec_without_a_decoder_is_named_as_the_reason(encode):
    data = encode()
    place = data.index(b"avc1", data.index(b"stsd"))
    with pytest.raises(VideoError, match="its codec is unknown"):
        probe(data[:place] + b"xxxx" + data[place + 4 :])


@pytest.mark.parametrize(
    ("container", "codec", "pix_fmt"),
    [
        ("gif", "gif", "rgb8"),
        ("h264", "libx264", "yuv420p"),
        ("hevc", "libx265", "yuv420p"),
        ("m4v", "mpeg4", "yuv420p"),
        ("mpeg2video", "mpeg2video", "yuv420p"),
        ("vob", "mpeg2video", "yuv420p"),
        ("mxf", "mpeg2video", "yuv420p"),
        ("nut", "libx264", "yuv420p"),
        ("wtv", "mpeg2video", "yuv420p"),
        ("ivf", "libvpx", "yuv420p"),
        ("rm", "rv10", "yuv420p"),
        ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
    ],
)
def test_other_real_containers_are_decoded(container, codec, pix_fmt, encode, decode_plainly):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    size = (96, 128)  # RealVideo takes multiples of 16
    data = encode(container, codec, pix_fmt=pix_fmt, num_frames=30, size=size, options=options)
    expected = decode_plainly(data)
    assert len(expected) == 30
    info = probe(data)
    assert (info.num_frames, info.fps) == (30, pytest.approx(25, rel=0.01))
    np.testing.assert_array_equal(decode_frames(data, [0, 7, 29]), expected[[0, 7, 29]])
