import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.evaluation.video_scores import VideoScores

NUM_VIDEOS, NUM_CLASSES = 4, 7
LABEL_V = np.array([0, 6, 2, 2])
NO_PADDING = np.zeros(2, np.int64)


@st.composite
def views_in_parts(draw):
    """(video of each view, its scores, its made-up frames, an order to add them in, where to cut it)."""
    video_N = np.array(draw(st.lists(st.integers(0, NUM_VIDEOS - 1), max_size=20)), dtype=np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    score_NK = rng.integers(0, 9, (len(video_N), NUM_CLASSES)).astype(np.float32)  # ties are frequent
    order = rng.permutation(len(video_N))
    cuts = sorted(draw(st.lists(st.integers(0, len(video_N)), max_size=4)))
    return video_N, score_NK, rng.integers(0, 5, len(video_N)), np.split(order, cuts)


@given(views_in_parts())
@settings(deadline=None)
def test_sums_are_those_of_all_views_whatever_parts_they_come_in(views):
    video_N, score_NK, padded_N, parts = views
    scores = VideoScores(LABEL_V, NUM_CLASSES)
    for part in parts:
        scores.add(video_N[part], score_NK[part], padded_N[part])
    for video in range(NUM_VIDEOS):
        own = score_NK[video_N == video]
        expected = np.mean(own, axis=0, dtype=np.float64) if len(own) else np.zeros(NUM_CLASSES)
        np.testing.assert_allclose(scores.mean_VK()[video], expected, rtol=1e-12)
        assert scores.num_views_V[video] == len(own)
        assert scores.is_scored_V[video] == bool(len(own))
    others = [np.delete(row, LABEL_V[video]) for video, row in zip(video_N, score_NK, strict=True)]
    num_at_least = [int((o >= row[LABEL_V[v]]).sum()) for v, row, o in zip(video_N, score_NK, others, strict=True)]
    assert scores.view_counts() == (
        len(video_N),
        sum(count < 1 for count in num_at_least),
        sum(count < 5 for count in num_at_least),
        padded_N.sum(),
    )


@given(views_in_parts(), st.sets(st.integers(0, NUM_VIDEOS - 1)), st.booleans())
@settings(deadline=None)
def test_a_failed_video_leaves_the_counts_of_the_others_alone(views, failed, is_told_first):
    video_N, score_NK, padded_N, _ = views
    scores, others = VideoScores(LABEL_V, NUM_CLASSES), VideoScores(LABEL_V, NUM_CLASSES)
    for video in failed if is_told_first else ():
        scores.fail(video)
    scores.add(video_N, score_NK, padded_N)
    for video in failed:
        scores.fail(video)
    kept = ~np.isin(video_N, list(failed))
    others.add(video_N[kept], score_NK[kept], padded_N[kept])
    assert scores.view_counts() == others.view_counts()
    assert np.array_equal(scores.is_scored_V, others.is_scored_V)


def test_a_video_twice_in_one_batch_counts_with_both_views():
    scores = VideoScores(np.array([0]), 2)
    scores.add(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 0.5]]), NO_PADDING)
    assert scores.mean_VK().tolist() == [[0.5, 0.25]]


def test_many_views_are_summed_without_loss_of_precision():
    scores = VideoScores(np.array([0]), 1)
    # In float32 a sum stands still once it is 2**24 times as large as what is added.
    scores.add(np.array([0]), np.array([[2.0**24]], dtype=np.float32), NO_PADDING[:1])
    for _ in range(3):
        scores.add(np.array([0]), np.ones((1, 1), dtype=np.float32), NO_PADDING[:1])
    assert scores.mean_VK()[0, 0] == (2**24 + 3) / 4
