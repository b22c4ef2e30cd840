"""Scores of views become one score a video, the mean over its views, and counts (paper 4.4, Testing).

A view is what the network scores at once: a clip (or, with segments, several clips of a video) in one crop.
All is summed video by video: memory does not grow with the number of views, which may come in any parts.

Legend: V videos, K classes, N views.
"""

from typing import NamedTuple

import numpy as np

from t3d_core.evaluation.metrics import is_correct_top_k


class ViewCounts(NamedTuple):
    """Counts over the views of all scored videos.

    Attributes:
        num_views: views.
        num_top1: those whose highest score is that of the label.
        num_top5: those whose label is among the five highest scores.
        num_padded_frames: frames in them that are made up, because a video is too short.
    """

    num_views: int
    num_top1: int
    num_top5: int
    num_padded_frames: int


class VideoScores:
    """Sums what views score, for each video.

    Args:
        label_V: Class of each video.
        num_classes: K.

    Attributes:
        label_V: As given.
        num_views_V: Views so far.
    """

    def __init__(self, label_V: np.ndarray, num_classes: int) -> None:
        self.label_V = label_V
        self.num_views_V = np.zeros(len(label_V), np.int64)
        self._sum_VK = np.zeros((len(label_V), num_classes))
        # The last three fields of ViewCounts.
        self._count_V3 = np.zeros((len(label_V), 3), np.int64)
        self._is_failed_V = np.zeros(len(label_V), bool)

    def add(self, video_N: np.ndarray, score_NK: np.ndarray, num_padded_N: np.ndarray) -> None:
        """Add N views: the video each is of (0-based), its scores, and how many of its frames are made up."""
        label_N = self.label_V[video_N]
        is_top_N = [is_correct_top_k(score_NK, label_N, k=k) for k in (1, 5)]
        np.add.at(self._sum_VK, video_N, score_NK)
        np.add.at(self.num_views_V, video_N, 1)
        np.add.at(self._count_V3, video_N, np.stack([*is_top_N, num_padded_N], axis=1, dtype=np.int64))

    def fail(self, video: int) -> None:
        """Leave out a video, with its score and counts, because not all of its views can be scored."""
        self._is_failed_V[video] = True

    @property
    def is_scored_V(self) -> np.ndarray:
        """Which videos have views and no failed view."""
        return (self.num_views_V > 0) & ~self._is_failed_V

    def mean_VK(self) -> np.ndarray:
        """Give the mean score of every video; zeros where a video has no view."""
        return self._sum_VK / np.maximum(self.num_views_V, 1)[:, None]

    def view_counts(self) -> ViewCounts:
        """Count over the views of all scored videos."""
        is_scored_V = self.is_scored_V
        counts = self._count_V3[is_scored_V].sum(axis=0).tolist()
        return ViewCounts(int(self.num_views_V[is_scored_V].sum()), *counts)
