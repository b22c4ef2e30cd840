import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.video.clip_sampling import (
    clip_span,
    non_overlapping_clips,
    random_clip,
    random_segments,
    stride_of_clip,
    stride_of_seconds,
    uniform_clips,
)

CLIP_SHAPES = {
    "num_frames": st.integers(1, 40),
    "frame_stride": st.integers(1, 17),
    "short_video": st.sampled_from(["loop", "repeat_last"]),
}


@pytest.mark.parametrize(
    ("num_frames", "frame_stride", "span"), [(32, 1, 32), (32, 2, 63), (32, 4, 125), (32, 16, 497), (1, 9, 1)]
)
def test_the_span_reaches_from_the_first_to_the_last_frame(num_frames, frame_stride, span):
    assert clip_span(num_frames, frame_stride) == span


@pytest.mark.parametrize(
    ("short_video", "expected"), [("loop", [0, 2, 4, 1, 3, 0]), ("repeat_last", [0, 2, 4, 4, 4, 4])]
)
def test_a_short_video_is_completed_by_its_rule_and_the_made_up_frames_are_counted(short_video, expected):
    for clip in (
        random_clip(5, num_frames=6, frame_stride=2, short_video=short_video, rng=np.random.default_rng(0)),
        *uniform_clips(5, num_clips=2, num_frames=6, frame_stride=2, short_video=short_video),
        *non_overlapping_clips(5, num_frames=6, frame_stride=2, short_video=short_video),
    ):
        assert clip.frame_indices.tolist() == expected
        assert clip.num_padded == 3


@given(video_num_frames=st.integers(1, 700), seed=st.integers(0, 99), start_multiple=st.integers(1, 3), **CLIP_SHAPES)
def test_a_random_clip_lies_in_the_video_with_the_stride_asked_for(video_num_frames, seed, start_multiple, **shape):
    clip = random_clip(video_num_frames, rng=np.random.default_rng(seed), start_multiple=start_multiple, **shape)
    indices = clip.frame_indices
    assert indices.dtype == np.int64
    assert len(indices) == shape["num_frames"]
    assert 0 <= indices.min() <= indices.max() < video_num_frames
    assert indices[0] % start_multiple == 0
    real = indices[: shape["num_frames"] - clip.num_padded]
    assert (np.diff(real) == shape["frame_stride"]).all()
    assert (clip.num_padded > 0) == (clip_span(shape["num_frames"], shape["frame_stride"]) > video_num_frames)


@pytest.mark.parametrize(("start_multiple", "starts"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4])])
def test_every_start_that_fits_is_drawn_equally_often(start_multiple, starts):
    rng = np.random.default_rng(0)
    kwargs = {"num_frames": 4, "frame_stride": 2, "short_video": "loop", "start_multiple": start_multiple}
    drawn = [int(random_clip(11, rng=rng, **kwargs).frame_indices[0]) for _ in range(1500)]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == starts
    assert (np.abs(counts / 1500 - 1 / len(starts)) < 0.05).all()


def test_the_same_seed_draws_the_same_clip():
    first, second = (
        random_clip(300, num_frames=8, frame_stride=2, short_video="loop", rng=np.random.default_rng(7))
        for _ in range(2)
    )
    assert first.frame_indices.tolist() == second.frame_indices.tolist()


def test_a_single_uniform_clip_is_the_centre_one():
    (clip,) = uniform_clips(20, num_clips=1, num_frames=4, frame_stride=2, short_video="loop")
    assert clip.frame_indices.tolist() == [6, 8, 10, 12]


@given(video_num_frames=st.integers(1, 700), num_clips=st.integers(2, 9), **CLIP_SHAPES)
def test_uniform_clips_reach_from_the_first_to_the_last_frame_at_even_distances(video_num_frames, num_clips, **shape):
    clips = uniform_clips(video_num_frames, num_clips=num_clips, **shape)
    starts = [int(clip.frame_indices[0]) for clip in clips]
    room = max(video_num_frames - clip_span(shape["num_frames"], shape["frame_stride"]), 0)
    assert len(clips) == num_clips
    assert starts[0] == 0
    assert starts[-1] == room
    assert np.ptp(np.diff(starts)) <= 1
    assert max(clip.frame_indices.max() for clip in clips) < video_num_frames


@pytest.mark.parametrize(
    ("video_num_frames", "starts"), [(1, [0]), (5, [0]), (10, [0]), (11, [0, 6]), (15, [0, 6]), (17, [0, 6, 12])]
)
def test_testing_clips_tile_the_video_and_drop_a_tail_shorter_than_a_span(video_num_frames, starts):
    clips = non_overlapping_clips(video_num_frames, num_frames=3, frame_stride=2, short_video="loop")
    assert [int(clip.frame_indices[0]) for clip in clips] == starts


@given(video_num_frames=st.integers(1, 2000), **CLIP_SHAPES)
def test_testing_clips_never_overlap_and_are_whole_unless_the_video_is_short(video_num_frames, **shape):
    clips = non_overlapping_clips(video_num_frames, **shape)
    span = clip_span(shape["num_frames"], shape["frame_stride"])
    if video_num_frames < span:
        assert len(clips) == 1
    else:
        assert all(clip.num_padded == 0 for clip in clips)
        ends = [int(clip.frame_indices[-1]) for clip in clips]
        assert all(end < clip.frame_indices[0] for end, clip in zip(ends, clips[1:], strict=False))
        assert video_num_frames - 1 - ends[-1] < span + shape["frame_stride"]


def test_impossible_arguments_are_named():
    shape = {"num_frames": 4, "frame_stride": 2}
    with pytest.raises(ValueError, match="video_num_frames must be >= 1, got 0"):
        non_overlapping_clips(0, short_video="loop", **shape)
    with pytest.raises(ValueError, match="short_video must be 'loop' or 'repeat_last', got 'zero'"):
        non_overlapping_clips(2, short_video="zero", **shape)
    with pytest.raises(ValueError, match="num_clips must be >= 1, got 0"):
        uniform_clips(9, num_clips=0, short_video="loop", **shape)
    with pytest.raises(ValueError, match=r"num_frames must be >= 1 and frame_stride above 0, got 4 and -1/2"):
        clip_span(4, Fraction(-1, 2))


@given(
    video_num_frames=st.integers(1, 400),
    num_segments=st.integers(1, 6),
    num_frames=st.integers(1, 8),
    frame_stride=st.integers(1, 5),
    start_multiple=st.integers(1, 2),
    seed=st.integers(0, 9),
)
def test_each_part_of_a_video_gives_a_clip_and_none_overlap_where_there_is_room(
    video_num_frames, num_segments, num_frames, frame_stride, start_multiple, seed
):
    clips = random_segments(
        video_num_frames,
        num_segments=num_segments,
        num_frames=num_frames,
        frame_stride=frame_stride,
        short_video="loop",
        rng=np.random.default_rng(seed),
        start_multiple=start_multiple,
    )
    span = clip_span(num_frames, frame_stride)
    starts = [int(clip.frame_indices[0]) for clip in clips]
    assert len(clips) == num_segments
    assert all(start % start_multiple == 0 for start in starts)
    assert starts == sorted(starts)
    if video_num_frames >= span:
        assert all(clip.num_padded == 0 for clip in clips)
    if video_num_frames // num_segments >= span + start_multiple - 1:
        assert all(later - earlier >= span for earlier, later in itertools.pairwise(starts))


def test_clips_of_a_short_video_come_from_all_of_it():
    """Where a part is shorter than a clip: 12 frames, 5 clips that span 7."""
    rng, shape = np.random.default_rng(0), {"num_frames": 4, "frame_stride": 2, "short_video": "loop"}
    drawn = [
        [int(clip.frame_indices[0]) for clip in random_segments(12, num_segments=5, rng=rng, **shape)]
        for _ in range(200)
    ]
    assert [set(starts) for starts in zip(*drawn, strict=True)] == [{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}]


def test_clips_of_a_part_start_anywhere_in_it():
    rng = np.random.default_rng(0)
    drawn = [
        [
            int(clip.frame_indices[0])
            for clip in random_segments(
                30, num_segments=3, num_frames=4, frame_stride=2, short_video="loop", rng=rng, start_multiple=2
            )
        ]
        for _ in range(300)
    ]
    assert [sorted(set(starts)) for starts in zip(*drawn, strict=True)] == [[0, 2], [10, 12], [20, 22]]


RATES = (15.0, 20.0, 24.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 50.0, 60000 / 1001, 60.0)
SECONDS = (1 / 30, 0.05, 1 / 15, 0.08, 1001 / 15000, 0.1, 0.25)


def all_clips(video_num_frames, seed=0, **shape):
    """Clips of every kind."""
    return [
        random_clip(video_num_frames, rng=np.random.default_rng(seed), **shape),
        *random_segments(video_num_frames, num_segments=3, rng=np.random.default_rng(seed), **shape),
        *uniform_clips(video_num_frames, num_clips=3, **shape),
        *non_overlapping_clips(video_num_frames, **shape),
    ]


@pytest.mark.parametrize(
    ("fps", "stride", "drawn"),
    [(30.0, 3, "x..x..x..x"), (20.0, 2, "x.x.x.x"), (15.0, Fraction(3, 2), "x.xx.x"), (10.0, 1, "xxxx")],
)
def test_a_tenth_of_a_second_at_four_rates(fps, stride, drawn):
    found = stride_of_seconds(0.1, fps=fps)
    assert found == stride
    [clip, *_] = uniform_clips(len(drawn), num_clips=1, num_frames=4, frame_stride=found, short_video="loop")
    assert clip.frame_indices.tolist() == [place for place, mark in enumerate(drawn) if mark == "x"]
    assert clip_span(4, found) == len(drawn)


@pytest.mark.parametrize(
    ("seconds_per_frame", "fps", "stride"),
    [(1001 / 15000, 30000 / 1001, 2), (1 / 15, 30.0, 2), (1 / 15, 60.0, 4), (0.066666667, 30.0, 2), (0.08, 25.0, 2)],
)
def test_whole_multiples_are_whole_in_spite_of_floats(seconds_per_frame, fps, stride):
    assert stride_of_seconds(seconds_per_frame, fps=fps) == stride
    assert stride_of_clip(None, seconds_per_frame, fps=fps) == stride
    assert stride_of_clip(7, None, fps=fps) == 7


@given(video_num_frames=st.integers(1, 400), seed=st.integers(0, 99), **CLIP_SHAPES)
def test_a_whole_stride_gives_the_same_clips_as_an_integer_and_as_a_fraction(video_num_frames, seed, **shape):
    as_fraction = shape | {"frame_stride": Fraction(shape["frame_stride"])}
    for one, other in zip(
        all_clips(video_num_frames, seed, **shape), all_clips(video_num_frames, seed, **as_fraction), strict=True
    ):
        assert one.frame_indices.tolist() == other.frame_indices.tolist()
        assert one.num_padded == other.num_padded


@given(
    fps=st.sampled_from(RATES),
    seconds_per_frame=st.sampled_from(SECONDS),
    num_seconds=st.integers(1, 20),
    num_frames=st.integers(1, 33),
    seed=st.integers(0, 99),
)
def test_every_frame_of_a_clip_is_within_half_a_source_frame_of_its_moment(
    fps, seconds_per_frame, num_seconds, num_frames, seed
):
    stride = stride_of_seconds(seconds_per_frame, fps=fps)
    shape = {"num_frames": num_frames, "frame_stride": stride, "short_video": "loop"}
    video_num_frames = round(num_seconds * fps)
    drawn = random_segments(video_num_frames, num_segments=3, rng=np.random.default_rng(seed), **shape)
    for clip in (*drawn, *uniform_clips(video_num_frames, num_clips=3, **shape)):
        indices = clip.frame_indices.tolist()
        if clip.num_padded == 0:
            assert 0 <= indices[0] <= indices[-1] < video_num_frames
            distances = [abs(index - indices[0] - number * stride) for number, index in enumerate(indices)]
            assert max(distances) <= Fraction(1, 2)
    for clip_number, clip in enumerate(non_overlapping_clips(video_num_frames, **shape)):
        for number, index in enumerate(clip.frame_indices.tolist(), start=clip_number * num_frames):
            assert clip.num_padded or abs(index - number * stride) <= Fraction(1, 2)


@given(
    rates=st.tuples(st.sampled_from(RATES), st.sampled_from(RATES)),
    seconds_per_frame=st.sampled_from(SECONDS),
    num_frames=st.integers(1, 33),
)
def test_testing_clips_show_the_same_moments_at_two_rates(rates, seconds_per_frame, num_frames):
    videos = []
    for fps in rates:
        stride = stride_of_seconds(seconds_per_frame, fps=fps)
        clips = non_overlapping_clips(
            round(20 * fps), num_frames=num_frames, frame_stride=stride, short_video="repeat_last"
        )
        videos.append([[index / fps for index in clip.frame_indices] for clip in clips if not clip.num_padded])
    assert abs(len(videos[0]) - len(videos[1])) <= 1, "the end of a video may be half a frame away"
    limit = sum(0.5 / fps for fps in rates) + 1e-9
    for one, other in zip(*videos, strict=False):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) <= limit


def test_a_video_slower_than_the_clip_repeats_frames():
    stride = stride_of_seconds(0.04, fps=10.0)
    [clip] = uniform_clips(3, num_clips=1, num_frames=6, frame_stride=stride, short_video="loop")
    assert clip.frame_indices.tolist() == [0, 0, 1, 1, 2, 2]
    assert clip.num_padded == 0


@pytest.mark.parametrize(("seconds_per_frame", "fps"), [(0.0, 25.0), (0.1, 0.0), (0.1, float("nan"))])
def test_a_distance_or_a_rate_that_is_none_is_named(seconds_per_frame, fps):
    with pytest.raises(ValueError, match="seconds_per_frame and fps must be above 0, got"):
        stride_of_seconds(seconds_per_frame, fps=fps)
