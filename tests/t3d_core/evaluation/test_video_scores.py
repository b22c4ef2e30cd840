import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from t3d_core.evaluation.video_scores import VideoScores

NUM_VIDEOS = 4


@given(
    video_of_clip=st.lists(st.integers(0, NUM_VIDEOS - 1), max_size=20), size=st.integers(1, 6), seed=st.integers(0, 9)
)
def test_a_videos_score_is_the_mean_over_its_clips_in_whatever_batches_they_come(video_of_clip, size, seed):
    video_N = np.array(video_of_clip, dtype=np.int64)
    score_NK = np.random.default_rng(seed).random((len(video_N), 3)).astype(np.float32)
    scores = VideoScores(NUM_VIDEOS, 3)
    for start in range(0, len(video_N), size):
        scores.add(video_N[start : start + size], score_NK[start : start + size])
    for video in range(NUM_VIDEOS):
        own = [score for of, score in zip(video_N, score_NK, strict=True) if of == video]
        expected = np.mean(own, axis=0, dtype=np.float64) if own else np.zeros(3)
        np.testing.assert_allclose(scores.mean_VK()[video], expected, rtol=1e-12)
        assert scores.num_clips_V[video] == len(own)
        assert scores.is_scored_V[video] == bool(own)


def test_a_video_twice_in_one_batch_counts_with_both_clips():
    scores = VideoScores(1, 2)
    scores.add(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 0.5]]))
    assert scores.mean_VK().tolist() == [[0.5, 0.25]]


def test_many_clips_are_summed_without_loss_of_precision():
    scores = VideoScores(1, 1)
    # In float32 a sum stands still once it is 2**24 times as large as what is added.
    scores.add(np.array([0]), np.array([[2.0**24]], dtype=np.float32))
    for _ in range(3):
        scores.add(np.array([0]), np.ones((1, 1), dtype=np.float32))
    assert scores.mean_VK()[0, 0] == (2**24 + 3) / 4
