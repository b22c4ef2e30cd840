"""Summed scores become the numbers of a test, and those of several folds their mean (paper Tables 9, 10).

Legend: V videos, K classes.
"""

import dataclasses
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from t3d_core.evaluation.intervals import accuracy_interval
from t3d_core.evaluation.metrics import is_correct_top_k
from t3d_core.evaluation.video_scores import VideoScores

_AVERAGED = ("clip_top1", "clip_top5", "video_top1", "video_top5", "avg_top1_top5", "coverage", "padded_share")


@dataclass(frozen=True)
class Evaluation:
    """The numbers of a test; accuracies and shares in [0, 1].

    Attributes:
        clip_top1: over all views; a view is a clip (or the clips of all segments) in one crop.
        clip_top5: over all views.
        video_top1: over scored videos, each by the mean score of its views.
        video_top1_low: lower end of its 95 % confidence interval over source videos.
        video_top1_high: upper end.
        video_top5: over scored videos.
        video_top5_low: lower end of its interval.
        video_top5_high: upper end.
        avg_top1_top5: mean of video_top1 and video_top5, the "Avg-Test" of Kinetics (paper Table 9).
        coverage: scored videos / videos that the annotations list.
        num_videos: scored videos.
        num_listed: listed videos.
        num_failed: prepared videos that could not be read or decoded; none of their views counts.
        num_lost: prepared videos whose shards are missing or damaged as a whole.
        num_clips: scored clips, each once, in however many crops.
        num_views: scored views.
        padded_share: frames made up because a video is shorter than a clip's span / all frames.
    """

    clip_top1: float
    clip_top5: float
    video_top1: float
    video_top1_low: float
    video_top1_high: float
    video_top5: float
    video_top5_low: float
    video_top5_high: float
    avg_top1_top5: float
    coverage: float
    num_videos: int
    num_listed: int
    num_failed: int
    num_lost: int
    num_clips: int
    num_views: int
    padded_share: float


@dataclass(frozen=True)
class FoldsEvaluation:
    """The numbers of several folds; accuracies and shares in [0, 1].

    Attributes:
        folds: official split lists, 1-based.
        mean: of each accuracy and share of `Evaluation`, by name, over the folds (paper Table 10).
        std: their sample standard deviation; empty for a single fold.
    """

    folds: tuple[int, ...]
    mean: dict[str, float]
    std: dict[str, float]


def evaluate_scores(
    scores: VideoScores,
    source_V: np.ndarray,
    *,
    num_listed: int,
    num_failed: int,
    num_lost: int,
    num_crops: int,
    num_segments: int,
    num_frames: int,
) -> Evaluation:
    """Compute the numbers of a test from summed scores.

    Args:
        scores: of at least one video.
        source_V: number of the source of each video.
        num_listed: videos that the annotations list.
        num_failed: videos that could not be scored.
        num_lost: videos that were prepared once and are not there.
        num_crops: views of each clip.
        num_segments: clips of a view.
        num_frames: frames of a clip.
    """
    counts, is_scored_V = scores.view_counts(), scores.is_scored_V
    score_VK, label_V = scores.mean_VK()[is_scored_V], scores.label_V[is_scored_V]
    num_videos = len(label_V)
    is_top1_V, is_top5_V = (is_correct_top_k(score_VK, label_V, k=k) for k in (1, 5))
    num_top1, num_top5 = int(is_top1_V.sum()), int(is_top5_V.sum())
    top1, top5 = (accuracy_interval(is_top_V, source_V[is_scored_V]) for is_top_V in (is_top1_V, is_top5_V))
    return Evaluation(
        clip_top1=counts.num_top1 / counts.num_views,
        clip_top5=counts.num_top5 / counts.num_views,
        video_top1=num_top1 / num_videos,
        video_top1_low=top1.low,
        video_top1_high=top1.high,
        video_top5=num_top5 / num_videos,
        video_top5_low=top5.low,
        video_top5_high=top5.high,
        avg_top1_top5=(num_top1 + num_top5) / (2 * num_videos),
        coverage=num_videos / num_listed,
        num_videos=num_videos,
        num_listed=num_listed,
        num_failed=num_failed,
        num_lost=num_lost,
        num_clips=counts.num_views * num_segments // num_crops,
        num_views=counts.num_views,
        padded_share=counts.num_padded_frames / (counts.num_views * num_segments * num_frames),
    )


def average_folds(evaluation_of_fold: Mapping[int, Evaluation]) -> FoldsEvaluation:
    """The mean and the standard deviation over the evaluations of folds; there must be at least one."""
    found = [dataclasses.asdict(evaluation) for evaluation in evaluation_of_fold.values()]
    values = {name: [evaluation[name] for evaluation in found] for name in _AVERAGED}
    return FoldsEvaluation(
        folds=tuple(evaluation_of_fold),
        mean={name: statistics.fmean(of_folds) for name, of_folds in values.items()},
        std={name: statistics.stdev(of_folds) for name, of_folds in values.items() if len(found) > 1},
    )
