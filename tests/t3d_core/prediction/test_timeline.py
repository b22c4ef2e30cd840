import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.errors import UserError
from t3d_core.prediction.timeline import Segment, format_seconds, make_timeline


def scores(*labels, num_classes=3, top=0.8):
    """One row per clip, with `top` for the label and the rest shared by the others."""
    score_NK = np.full((len(labels), num_classes), (1 - top) / (num_classes - 1), np.float32)
    score_NK[range(len(labels)), labels] = top
    return score_NK


def timeline_of(*labels, seconds=2.0, stride=2.0, **options):
    start_N = np.arange(len(labels)) * stride
    return make_timeline(start_N, start_N + seconds, scores(*labels), **options)


def spoken(segments):
    return [(each.start_seconds, each.end_seconds, each.label) for each in segments]


@st.composite
def timelines(draw):
    """Clips of one length or of several, with overlaps, equal starts and gaps."""
    num_clips, num_classes = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    steps = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.7, 4.0]), min_size=num_clips, max_size=num_clips))
    lengths = draw(st.lists(st.sampled_from([0.3, 1.0, 2.0]), min_size=num_clips, max_size=num_clips))
    start_N = np.cumsum(steps)
    end_N = np.maximum.accumulate(start_N + lengths)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    score_NK = rng.dirichlet(np.ones(num_classes), num_clips).astype(np.float32)
    window, gap = draw(st.sampled_from([0.0, 1.0, 5.0])), draw(st.sampled_from([0.0, 1.0]))
    return make_timeline(start_N, end_N, score_NK, window_seconds=window, max_gap_seconds=gap)


@given(timelines(), st.sampled_from([0.0, 0.5, 2.0, 100.0]))
def test_segments_tile_the_covered_time_in_order_and_never_overlap(timeline, min_seconds):
    segments = timeline.segments(min_seconds=min_seconds)
    pieces = [(each.start_seconds, each.end_seconds) for each in segments]
    assert all(start < end for start, end in pieces)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(pieces))
    covered = []  # the union of the clips, by an own sweep
    for start, end in zip(timeline.start_seconds_N, timeline.end_seconds_N, strict=True):
        if covered and start <= covered[-1][1] + timeline.max_gap_seconds + 1e-6:
            covered[-1][1] = end
        else:
            covered.append([start, end])
    joined = []
    for start, end in pieces:
        if joined and start == joined[-1][1]:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    np.testing.assert_allclose(np.array(joined), np.array(covered), atol=1e-5)


@given(timelines())
def test_neighbours_that_touch_have_different_classes_and_every_moment_has_the_class_of_its_clip(timeline):
    segments, spans = timeline.segments(), timeline.spans()
    for before, after in itertools.pairwise(segments):
        assert before.label != after.label or before.end_seconds < after.start_seconds
    for each in segments:
        clip = spans.clip_at((each.start_seconds + each.end_seconds) / 2)
        assert timeline.smoothed_NK[clip, each.label] == timeline.smoothed_NK[clip].max()


@given(timelines(), st.sampled_from([0.5, 2.0, 100.0]))
def test_what_is_shorter_than_the_minimum_has_gaps_on_both_sides(timeline, min_seconds):
    segments = timeline.segments(min_seconds=min_seconds)
    borders = {each.start_seconds for each in segments} & {each.end_seconds for each in segments}
    for each in segments:
        if each.end_seconds - each.start_seconds < min_seconds - 1e-9:
            assert not borders & {each.start_seconds, each.end_seconds}


@given(timelines())
def test_smoothed_scores_are_the_weighted_mean_written_out(timeline):
    again = make_timeline(timeline.start_seconds_N, timeline.end_seconds_N, timeline.score_NK, window_seconds=3)
    centre = timeline.centre_seconds_N
    distance_NN = np.abs(centre[:, None] - centre[None])
    weight_NN = np.where(distance_NN <= 1.5, np.exp(-0.5 * (distance_NN / 0.75) ** 2), 0)
    expected = weight_NN @ timeline.score_NK / weight_NN.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(again.smoothed_NK, expected, atol=1e-6)
    np.testing.assert_allclose(again.smoothed_NK.sum(axis=1), 1, atol=1e-5)


def test_without_a_window_scores_stay_to_the_last_bit():
    timeline = timeline_of(0, 1, 2)
    assert np.array_equal(timeline.smoothed_NK, timeline.score_NK)


def test_smoothing_removes_a_single_clip_of_another_class():
    labels = [0] * 5 + [1] + [0] * 5
    assert len(timeline_of(*labels, stride=0.5).segments()) == 3
    assert spoken(timeline_of(*labels, stride=0.5, window_seconds=3).segments()) == [(0, 7, 0)]


def test_a_border_is_halfway_between_the_centres_of_clips_that_overlap():
    assert spoken(timeline_of(0, 0, 1, stride=1.0).segments()) == [(0, 2.5, 0), (2.5, 4, 1)]
    assert spoken(timeline_of(0, 1, stride=2.0).segments()) == [(0, 2, 0), (2, 4, 1)]


def test_a_short_last_clip_gets_no_time_before_its_start():
    timeline = make_timeline(np.array([0.0, 2.0]), np.array([2.0, 2.5]), scores(0, 1))
    assert spoken(timeline.segments()) == [(0, 2, 0), (2, 2.5, 1)]


def test_a_gap_ends_a_segment_unless_it_is_allowed():
    assert spoken(timeline_of(0, 0, stride=3.0).segments()) == [(0, 2, 0), (3, 5, 0)]
    assert spoken(timeline_of(0, 0, stride=3.0, max_gap_seconds=1.0).segments()) == [(0, 5, 0)]
    assert spoken(timeline_of(0, 1, stride=3.0, max_gap_seconds=1.0).segments()) == [(0, 2.5, 0), (2.5, 5, 1)]


def test_a_short_stretch_joins_the_neighbour_whose_class_scores_higher_in_it():
    score_NK = np.array([[0.8, 0.1, 0.1], [0.1, 0.3, 0.6], [0.1, 0.8, 0.1]], np.float32)
    timeline = make_timeline(np.array([0.0, 3.0, 4.0]), np.array([3.0, 4.0, 7.0]), score_NK)
    assert spoken(timeline.segments(min_seconds=1)) == [(0, 3, 0), (3, 4, 2), (4, 7, 1)]
    assert spoken(timeline.segments(min_seconds=1.1)) == [(0, 3, 0), (3, 7, 1)]


def test_the_score_of_a_segment_is_the_mean_smoothed_score_of_its_class():
    score_NK = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)
    [segment] = make_timeline(np.array([0.0, 1.0]), np.array([1.0, 2.0]), score_NK).segments()
    assert segment.score == pytest.approx(0.75)


def test_a_moment_belongs_to_one_clip_or_to_a_gap():
    spans = timeline_of(0, 1, stride=3.0).spans()
    assert [spans.clip_at(moment) for moment in (-0.1, 0, 1.9, 2, 2.9, 3, 4.9, 5)] == [
        None, 0, 0, None, None, 1, 1, None
    ]  # fmt: skip


def test_negative_times_of_a_user_are_refused_by_name():
    with pytest.raises(UserError, match="window_seconds must be >= 0 seconds, got -1"):
        timeline_of(0, window_seconds=-1)
    with pytest.raises(UserError, match="min_seconds"):
        timeline_of(0).segments(min_seconds=float("nan"))
    with pytest.raises(UserError, match="max_gap_seconds"):
        timeline_of(0, max_gap_seconds=-1)


def test_a_two_hour_video_takes_seconds_of_arithmetic_at_most():
    rng = np.random.default_rng(0)
    start_N = np.arange(5000) * 1.44
    score_NK = rng.dirichlet(np.ones(400) * 0.1, 5000).astype(np.float32)
    began = time.process_time()
    timeline = make_timeline(start_N, start_N + 2.1, score_NK, window_seconds=4)
    assert len(timeline.segments()) > len(timeline.segments(min_seconds=10)) > 10
    assert time.process_time() - began < 5, "a bound for busy machines"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (12.9, "0:12"), (59.9999999, "1:00"), (61, "1:01"), (3723.5, "1:02:03"), (-0.01, "0:00")],
)
def test_moments_are_written_as_players_do(seconds, text):
    assert format_seconds(seconds) == text


def test_a_segment_in_words():
    assert Segment(12.4, 31, 1, 0.834).in_words(["run", "jumping"]) == "0:12-0:31 jumping 0.83"
