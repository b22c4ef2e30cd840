import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.video.segment_ranges import SegmentRequest, interval_range, random_ranges

ascending_seconds = st.lists(st.floats(0, 100), min_size=1, max_size=60).map(
    lambda times: np.sort(np.array(times)) - min(times)
)


@given(
    seconds=ascending_seconds,
    num_segments=st.integers(1, 8),
    segment_seconds=st.floats(0.1, 200),
    seed=st.integers(0, 99),
)
def test_random_windows_are_inside_the_video_ascending_apart_and_never_empty(
    seconds, num_segments, segment_seconds, seed
):
    ranges = random_ranges(seconds, num_segments=num_segments, segment_seconds=segment_seconds, seed=seed)
    assert 1 <= len(ranges) <= num_segments
    edges = [edge for window in ranges for edge in window]
    assert edges == sorted(edges)
    assert all(0 <= first < stop <= len(seconds) for first, stop in ranges)
    # All frames after the one on screen at the start lie within the window's length.
    assert all(seconds[stop - 1] - seconds[first + 1] <= segment_seconds for first, stop in ranges if stop > first + 1)


@given(num_frames=st.integers(1, 400), num_segments=st.integers(1, 6), seed=st.integers(0, 99))
def test_each_equal_part_of_a_steady_video_gives_one_whole_window(num_frames, num_segments, seed):
    ranges = random_ranges(np.arange(num_frames) / 25, num_segments=num_segments, segment_seconds=2.0, seed=seed)
    if num_frames <= 50:
        assert ranges == [(0, num_frames)]
        return
    assert len(ranges) == min(num_segments, num_frames // 50)
    assert all(49 <= stop - first <= 51 for first, stop in ranges)
    part = num_frames / len(ranges)
    assert all(k * part - 2 <= first and stop <= (k + 1) * part + 2 for k, (first, stop) in enumerate(ranges))


def test_random_windows_follow_from_the_seed_alone_and_move_with_it():
    seconds = np.arange(3000) / 30
    windows = [
        tuple(random_ranges(seconds, num_segments=3, segment_seconds=4.0, seed=seed))
        for seed in (7, 7, 8, [7, 1], [7, 1], [7, 2])
    ]
    assert windows[0] == windows[1]
    assert windows[3] == windows[4]
    assert len(set(windows)) == 4


@pytest.mark.parametrize("seconds", [[0, 1e12], [0, 1e300, 1e300], [0.0], [0, 0, 0], np.arange(50) * 86400.0])
def test_absurd_times_give_a_window_and_cost_nothing(seconds):
    ranges = random_ranges(np.array(seconds), num_segments=5, segment_seconds=10.0, seed=0)
    assert 1 <= len(ranges) <= 5


def test_no_frame_gives_no_window():
    assert random_ranges(np.empty(0), num_segments=5, segment_seconds=10.0, seed=0) == []


def test_an_interval_includes_its_begin_and_excludes_its_end_whatever_decimals_round_to():
    seconds = np.arange(100) * (1 / 30)
    for first, stop in itertools.combinations(range(0, 100, 7), 2):
        [wanted] = interval_range(seconds, start_seconds=round(first / 30, 7), end_seconds=round(stop / 30, 7))
        assert wanted == (first, stop)


def test_times_out_of_order_make_no_hole_in_an_interval():
    seconds = np.array([0, 1, 3, 2, 4, 5]) / 25
    assert interval_range(seconds, start_seconds=2.5 / 25, end_seconds=9) == [(2, None)]
    assert interval_range(seconds, start_seconds=0, end_seconds=3 / 25) == [(0, 2)]
    assert interval_range(seconds, start_seconds=9, end_seconds=10) == []


def test_tiles_cover_a_stretch_without_gaps_and_go_on_where_its_end_is_unknown():
    ranges = SegmentRequest(1.0, 3.5, 1.0).frame_ranges(np.arange(100) / 10, fps=10.0)
    assert list(ranges.pieces()) == [(10, 20), (20, 30), (30, 35)]
    endless = SegmentRequest(max_segment_seconds=2.0).frame_ranges(None, fps=10.0)
    assert list(itertools.islice(endless.pieces(), 3)) == [(0, 20), (20, 40), (40, 60)]


def test_a_hostile_frame_rate_makes_one_piece_and_no_overflow():
    ranges = SegmentRequest(max_segment_seconds=1e300).frame_ranges(None, fps=1e300)
    assert next(ranges.pieces())[0] == 0


@given(
    steps=st.lists(st.floats(0.001, 3), min_size=1, max_size=80),
    start=st.floats(0, 50),
    segment_seconds=st.floats(0.1, 5),
    fps=st.floats(1, 100),
)
def test_pieces_hold_every_frame_once_and_last_no_longer_than_asked(steps, start, segment_seconds, fps):
    seconds = start + np.cumsum(np.array(steps))
    pieces = []
    for first, stop in SegmentRequest(max_segment_seconds=segment_seconds).frame_ranges(seconds, fps=fps).pieces():
        pieces.append((first, len(seconds) if stop is None else min(stop, len(seconds))))
        if pieces[-1][1] == len(seconds):
            break
    assert [frame for first, stop in pieces for frame in range(first, stop)] == list(range(len(seconds)))
    longest = segment_seconds + 2 / fps + 0.01
    assert all(first + 1 == stop or seconds[stop - 1] - seconds[first] <= longest for first, stop in pieces)


def test_evenly_spaced_frames_are_cut_by_their_number_and_others_by_their_times():
    request = SegmentRequest(max_segment_seconds=2.0)
    even = np.arange(600) * 1001 / 30000
    assert request.frame_ranges(even, fps=30000 / 1001).piece_frames == 59
    assert request.frame_ranges(None, fps=30000 / 1001).piece_frames == 59
    assert request.frame_ranges(even, fps=None).stretches[:3] == [(0, 60), (60, 120), (120, 180)]
    uneven = request.frame_ranges(np.arange(20) * 1.0, fps=25)
    assert uneven == (
        [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14), (14, 16), (16, 18), (18, None)],
        None,
    )
