import dataclasses
import inspect

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from t3d_core.evaluation.evaluation import Evaluation, FoldsEvaluation, average_folds, evaluate_scores
from t3d_core.evaluation.video_scores import VideoScores

NUM_CLASSES = 20


def evaluation_of(seed, *, num_videos=40, num_listed=50, num_crops=3, num_segments=2, videos_a_source=1):
    rng = np.random.default_rng(seed)
    label_V = rng.integers(0, NUM_CLASSES, num_videos)
    video_N = np.concatenate([np.arange(num_videos), rng.integers(0, num_videos, 80)])
    score_NK = rng.dirichlet(np.ones(NUM_CLASSES), len(video_N)).astype(np.float32)
    score_NK[np.arange(len(video_N)), label_V[video_N]] += 0.05
    scores = VideoScores(label_V, NUM_CLASSES)
    scores.add(video_N, score_NK, np.full(len(video_N), 8))
    evaluation = evaluate_scores(
        scores,
        np.arange(num_videos) // videos_a_source,
        num_listed=num_listed,
        num_failed=2,
        num_lost=3,
        num_crops=num_crops,
        num_segments=num_segments,
        num_frames=16,
    )
    return evaluation, label_V, video_N, score_NK


def test_accuracies_are_those_of_scikit_learn():
    evaluation, label_V, video_N, score_NK = evaluation_of(0)
    mean_VK = np.stack([score_NK[video_N == video].mean(axis=0) for video in range(len(label_V))])
    classes = range(NUM_CLASSES)
    for k in (1, 5):
        of_videos = top_k_accuracy_score(label_V, mean_VK, k=k, labels=classes)
        of_views = top_k_accuracy_score(label_V[video_N], score_NK, k=k, labels=classes)
        assert getattr(evaluation, f"video_top{k}") == pytest.approx(of_videos)
        assert getattr(evaluation, f"clip_top{k}") == pytest.approx(of_views)
        assert getattr(evaluation, f"video_top{k}_low") < of_videos < getattr(evaluation, f"video_top{k}_high")
    assert 0 < evaluation.video_top1 < evaluation.video_top5 < 1
    assert evaluation.avg_top1_top5 == pytest.approx((evaluation.video_top1 + evaluation.video_top5) / 2)


def test_intervals_are_over_the_sources_of_the_scored_videos():
    width_of = {}
    for videos_a_source in (1, 4, 40):
        evaluation, *_ = evaluation_of(0, videos_a_source=videos_a_source)
        width_of[videos_a_source] = evaluation.video_top1_high - evaluation.video_top1_low
    assert width_of[1] != width_of[4]
    assert width_of[40] == 1, "one source says nothing of others"


def test_counts_say_what_was_scored():
    evaluation, *_ = evaluation_of(0)
    assert (evaluation.num_videos, evaluation.num_listed) == (40, 50)
    assert (evaluation.num_failed, evaluation.num_lost) == (2, 3)
    assert evaluation.coverage == 0.8
    assert (evaluation.num_views, evaluation.num_clips) == (120, 80)  # 3 views show 1 x 2 clips
    assert evaluation.padded_share == 8 / (2 * 16)


def test_folds_have_a_mean_and_a_sample_deviation():
    evaluations = {fold: evaluation_of(fold)[0] for fold in (1, 2, 3)}
    averaged = average_folds(evaluations)
    top1 = [evaluation.video_top1 for evaluation in evaluations.values()]
    assert averaged.folds == (1, 2, 3)
    assert averaged.mean["video_top1"] == pytest.approx(np.mean(top1))
    assert averaged.std["video_top1"] == pytest.approx(np.std(top1, ddof=1))
    assert averaged.std.keys() == averaged.mean.keys() >= {"video_top5", "avg_top1_top5", "coverage"}


def test_a_single_fold_has_no_spread():
    assert average_folds({2: evaluation_of(0)[0]}).std == {}


@pytest.mark.parametrize("written", [Evaluation, FoldsEvaluation])
def test_every_number_that_is_written_is_explained(written):
    text = inspect.getdoc(written)
    assert all(f"    {field.name}: " in text for field in dataclasses.fields(written))
