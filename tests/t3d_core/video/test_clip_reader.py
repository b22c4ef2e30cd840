"""The views of a source are those of a decode by frame number, in any container, for any rule of sampling."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from t3d_core.errors import UserError
from t3d_core.video import clip_reader
from t3d_core.video.clip_reader import VideoShare, ViewSampling, read_views
from t3d_core.video.clip_sampling import ClipView, non_overlapping_clips, uniform_clips
from t3d_core.video.container import VideoError
from t3d_core.video.conversion import FrameConverter
from t3d_core.video.cropping import center_crop, crop_frames, mirrored, view_crops
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.listed_source import list_source
from t3d_core.video.sizes import resized_size
from t3d_core.video.source_frames import SourceReader

CLIP = ClipView(num_frames=4, frame_stride=2, crop_size=32, short_side=36, short_video="loop")
SAMPLING = ViewSampling(CLIP)
KINDS = {
    "mp4": ("mp4", "libx264"),
    "mpegts": ("mpegts", "libx264"),
    "avi": ("avi", "mpeg4"),
    "webm": ("webm", "libvpx"),
    "gif": ("gif", "gif"),
}


def expected(source, clips, sampling):
    """The pixels of clips by `decode_frames`, whose crop is cut by the decoder, as in the loader of shards."""
    info = probe(source)
    size = resized_size(info.height, info.width, short_side=sampling.clip.short_side)
    crop = center_crop(*size, crop_size=sampling.clip.crop_size)
    return [decode_frames(source, clip.frame_indices, size=size, crop=crop) for clip in clips]


def shape_of(sampling):
    return {
        "num_frames": sampling.clip.num_frames,
        "frame_stride": sampling.clip.frame_stride,
        "short_video": sampling.clip.short_video,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_frames", [1, 5, 7, 30, 31])
def test_clips_side_by_side_are_those_of_testing(encode, kind, num_frames):
    container, codec = KINDS[kind]
    source = encode(container, codec, num_frames=num_frames, pix_fmt="rgb8" if kind == "gif" else "yuv420p")
    clips = non_overlapping_clips(probe(source).num_frames, **shape_of(SAMPLING))
    views = list(read_views(source, SAMPLING))
    assert [view.num_padded for view in views] == [clip.num_padded for clip in clips]
    for view, clip_THWC in zip(views, expected(source, clips, SAMPLING), strict=True):
        np.testing.assert_array_equal(view.clip_STHWC, clip_THWC[None])


@pytest.mark.parametrize("kind", ["mp4", "avi"])
@pytest.mark.parametrize("num_clips", [1, 3, 9])
def test_clips_at_even_distances_may_overlap(encode, kind, num_clips):
    container, codec = KINDS[kind]
    source = encode(container, codec, num_frames=25)
    clips = uniform_clips(25, num_clips=num_clips, **shape_of(SAMPLING))
    views = list(read_views(source, replace(SAMPLING, num_clips=num_clips)))
    for view, clip_THWC in zip(views, expected(source, clips, SAMPLING), strict=True):
        np.testing.assert_array_equal(view.clip_STHWC, clip_THWC[None])


@pytest.mark.parametrize("num_frames", [3, 25])
def test_the_segments_of_a_network_are_one_view(encode, num_frames):
    source = encode(num_frames=num_frames)
    clips = uniform_clips(num_frames, num_clips=3, **shape_of(SAMPLING))
    [view] = read_views(source, ViewSampling(replace(CLIP, num_segments=3), num_clips=7))
    np.testing.assert_array_equal(view.clip_STHWC, np.stack(expected(source, clips, SAMPLING)))
    assert view.num_padded == sum(clip.num_padded for clip in clips)


@pytest.mark.parametrize("num_crops", [3, 10])
def test_every_crop_of_a_clip_is_a_view(encode, num_crops):
    source = encode(num_frames=16)
    views = list(read_views(source, replace(SAMPLING, num_crops=num_crops)))
    size = resized_size(46, 64, short_side=36)
    clips = non_overlapping_clips(16, **shape_of(SAMPLING))
    cut = []
    for clip in clips:
        frames_THWC = decode_frames(source, clip.frame_indices, size=size)
        for crop, is_mirrored in view_crops(*size, crop_size=32, num_crops=num_crops):
            square = crop_frames(frames_THWC, crop)
            cut.append(mirrored(square) if is_mirrored else square)
    for view, clip_THWC in zip(views, cut, strict=True):
        np.testing.assert_array_equal(view.clip_STHWC[0], clip_THWC)


@pytest.mark.parametrize(("stride_seconds", "starts"), [(0.08, range(0, 54, 2)), (0.8, [0, 20, 40])])
def test_clips_start_at_the_stride_wherever_all_their_frames_are_there(encode, stride_seconds, starts):
    source = encode(num_frames=60, options={"g": "10"})  # 25 frames a second; a wide stride seeks over the gaps
    views = list(read_views(source, replace(SAMPLING, stride_seconds=stride_seconds)))
    assert [round(view.start_seconds * 25) for view in views] == list(starts)
    for view, start in zip(views, starts, strict=True):
        indices = np.arange(start, start + 8, 2)
        size = resized_size(46, 64, short_side=36)
        frames = decode_frames(source, indices, size=size, crop=center_crop(*size, crop_size=32))
        np.testing.assert_array_equal(view.clip_STHWC[0], frames)


def test_seconds_are_on_the_clock_of_the_file_and_end_with_the_last_frame(encode):
    views = list(read_views(encode(num_frames=20), SAMPLING))
    assert [(round(view.start_seconds, 6), round(view.end_seconds, 6)) for view in views] == [(0, 0.28), (0.32, 0.6)]


def test_a_distance_in_seconds_follows_the_rate_of_the_video(encode):
    source = encode(num_frames=30)
    in_seconds = ViewSampling(replace(CLIP, frame_stride=None, seconds_per_frame=0.12))  # three frames of 25 a second
    one, other = (list(read_views(source, each)) for each in (in_seconds, ViewSampling(replace(CLIP, frame_stride=3))))
    assert len(one) == 2
    for view, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(view.clip_STHWC, same.clip_STHWC)


def test_a_rotated_video_is_read_upright(encode):
    source = encode(num_frames=8, rotation=90)
    [view] = read_views(source, SAMPLING)
    clips = non_overlapping_clips(8, **shape_of(SAMPLING))
    assert probe(source).height == 64
    np.testing.assert_array_equal(view.clip_STHWC[0], expected(source, clips, SAMPLING)[0])


def test_a_long_video_keeps_no_more_than_the_clips_at_work(encode):
    views = read_views(encode(num_frames=400), SAMPLING)
    first = next(views)  # handed over when its last frame is there, not at the end of the file
    assert first.start_seconds == 0
    assert 1 + sum(1 for _ in views) == 50


def test_damage_is_an_error_after_the_clips_before_it(encode):
    source = bytearray(encode("matroska", "libx264", num_frames=60, options={"g": "10"}))
    views = read_views(bytes(source[: len(source) * 2 // 3]), SAMPLING)
    next(views)
    with pytest.raises(VideoError, match=r"truncated|corrupt"):
        list(views)


@pytest.mark.parametrize("wrong", [{"stride_seconds": 0.0}, {"stride_seconds": 1.0, "num_clips": 2}])
def test_a_rule_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(UserError, match="stride_seconds"):
        replace(SAMPLING, **wrong)


def test_a_frame_of_overlapping_clips_is_converted_once(encode, monkeypatch):
    converted = []
    write = FrameConverter.write

    def counting(self, frame, *arguments, **options):
        converted.append(frame.pts)
        write(self, frame, *arguments, **options)

    monkeypatch.setattr(FrameConverter, "write", counting)
    views = list(read_views(encode(num_frames=30), replace(SAMPLING, stride_seconds=0.04)))
    assert len(views) == 24
    assert len(converted) == len(set(converted)) <= 30


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *((kind, {}) for kind in KINDS),
        *(("mp4", change) for change in ({"stride_seconds": 0.2}, {"num_crops": 3}, {"num_clips": 4})),
    ],
)
def test_the_shares_of_a_video_together_are_its_views(encode, kind, changes):
    container, codec = KINDS[kind]
    options = {"g": "10"} if codec == "libx264" else {}
    source = encode(container, codec, num_frames=61, pix_fmt="rgb8" if kind == "gif" else "yuv420p", options=options)
    sampling = replace(SAMPLING, **changes)
    shares = [list(read_views(source, sampling, share=VideoShare(index, 3))) for index in range(3)]
    for view, whole in zip(itertools.chain(*shares), read_views(source, sampling), strict=True):
        np.testing.assert_array_equal(view.clip_STHWC, whole.clip_STHWC)
        assert view[1:] == whole[1:]
    if kind == "mp4" and not sampling.is_spread:
        assert all(shares)


@pytest.mark.parametrize("num_frames", [1, 7, 8])
def test_a_video_of_fewer_clips_than_shares_is_read_once(encode, num_frames):
    source = encode(num_frames=num_frames)
    views = [view for index in range(5) for view in read_views(source, SAMPLING, share=VideoShare(index, 5))]
    [whole], [view] = read_views(source, SAMPLING), views
    np.testing.assert_array_equal(view.clip_STHWC, whole.clip_STHWC)
    assert view.num_padded == whole.num_padded


def test_a_share_decodes_only_from_the_key_frame_before_it(encode, monkeypatch):
    source, decoded = encode(num_frames=120, options={"g": "10"}), []
    frames = SourceReader._decode_from_key

    def noting(self, key_index):
        for item in frames(self, key_index):
            decoded.append(item.frame_index)
            yield item

    monkeypatch.setattr(SourceReader, "_decode_from_key", noting)
    assert list(read_views(source, SAMPLING, share=VideoShare(2, 4)))
    assert 50 <= min(decoded) <= 56  # clips 7 to 10: frames 56 to 86
    assert max(decoded) == 86


def test_the_packets_of_a_file_are_listed_once_for_all_shares_until_it_changes(encode, tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(clip_reader, "list_source", lambda *given: listed.append(given[0]) or list_source(*given))
    path = tmp_path / "video.mp4"
    for num_frames in (60, 120):
        path.write_bytes(encode(num_frames=num_frames))
        shares = [list(read_views(path, SAMPLING, share=VideoShare(place, 3))) for place in range(3)]
        assert sum(map(len, shares)) == len(list(read_views(path, SAMPLING)))
    assert listed == [str(path), path, str(path), path]


def test_a_truncated_file_is_not_shared(encode):
    source = bytearray(encode("matroska", "libx264", num_frames=60, options={"g": "10"}))
    cut = bytes(source[: len(source) * 2 // 3])
    assert list(read_views(cut, SAMPLING, share=VideoShare(1, 2))) == []
    with pytest.raises(VideoError, match=r"truncated|corrupt"):
        list(read_views(cut, SAMPLING, share=VideoShare(0, 2)))
