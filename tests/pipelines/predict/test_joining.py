"""Views in any order become the predictions of whole videos, each as soon as it is complete."""

import json

import numpy as np

from pipelines.predict.joining import Joining
from pipelines.predict.parts import VideoPart
from t3d_core.prediction.video_prediction import ViewResults, join_views
from t3d_core.video.clip_reader import VideoShare

PARTS = [VideoPart(0, VideoShare(0, 2)), VideoPart(0, VideoShare(1, 2)), VideoPart(1, VideoShare())]
RNG = np.random.default_rng(0)
SCORES = {part: RNG.random((4, 3), np.float32) for part in range(3)}


def batch(views, *ends):
    """Scored views (part, place) and the parts (part, num_views, reason) that end with them."""
    parts, places = np.array(views or [(-1, 0)]).T
    score_BK = np.stack([SCORES[max(0, part)][place] for part, place in zip(parts, places, strict=True)])
    return {
        "part_B": parts,
        "place_B": places,
        "score_BK": score_BK,
        "feature_BD": score_BK * 2,
        "start_B": 10.0 * parts + places,
        "end_B": 10.0 * parts + places + 1,
        "num_padded_B": np.ones(len(parts), int),
        "ends_1": np.array([json.dumps(ends)]),
    }


def joining(num_crops=1):
    return Joining(["a", "b"], PARTS, num_crops=num_crops)


def test_parts_are_joined_in_order_of_time_whatever_order_they_come_in():
    join = joining()
    assert list(join.add(batch([(1, 1), (2, 0)], (1, 2, "")))) == []
    assert list(join.add(batch([(0, 0), (0, 1)], (0, 3, "")))) == []
    assert list(join.add(batch([(1, 0)]))) == []
    [result] = join.add(batch([(0, 2)]))
    score_BK = np.concatenate([SCORES[0][:3], SCORES[1][:2]])
    start_B = np.array([0, 1, 2, 10, 11.0])
    expected = join_views([ViewResults(score_BK, score_BK * 2, start_B, start_B + 1, 5)], num_crops=1)
    assert result.video == "a"
    for one, other in zip(vars(result.prediction).values(), vars(expected).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [lost.video for lost in join.lost()] == ["b"]


def test_crops_of_a_clip_become_one():
    join = joining(num_crops=2)
    [result] = join.add(batch([(2, 3), (2, 0), (2, 1), (2, 2)], (2, 4, "")))
    assert result.prediction.start_N.tolist() == [20, 22]
    assert result.prediction.num_padded == 2


def test_views_that_come_again_from_a_task_run_twice_count_once():
    join = joining()
    again = batch([(2, 0), (2, 1)])
    assert list(join.add(again)) == list(join.add(again)) == []
    [result] = join.add(batch([(2, 1), (2, 2)], (2, 3, "")))
    assert len(result.prediction.score_NK) == 3
    assert list(join.add(batch([(2, 2)], (2, 3, "")))) == []
    assert [lost.video for lost in join.lost()] == ["a"]


def test_a_part_that_failed_fails_its_video_when_all_parts_ended():
    join = joining()
    assert list(join.add(batch([(0, 0)], (1, 0, "corrupt: later")))) == []
    [result] = join.add(batch([], (0, 2, "corrupt: earlier")))
    assert (result.prediction, result.reason) == (None, "corrupt: earlier")


def test_a_part_that_ended_well_stays_so_when_its_task_runs_again_and_fails():
    join = joining()
    assert list(join.add(batch([(0, 0), (0, 1)], (0, 2, "")))) == []
    assert list(join.add(batch([], (0, 0, "unreadable")))) == []
    [result] = join.add(batch([(1, 0)], (1, 1, "")))
    assert (len(result.prediction.score_NK), result.reason) == (3, "")


def test_a_video_that_gives_no_view_at_all_has_failed():
    [result] = joining().add(batch([], (2, 0, "")))
    assert "zero frames" in result.reason


def test_what_was_lost_is_named_at_the_end():
    join = joining()
    list(join.add(batch([(0, 0), (2, 0)], (2, 1, ""))))
    [lost] = join.lost()
    assert (lost.video, lost.prediction) == ("a", None)
    assert "start the job again" in lost.reason
