"""Scores of clips become one score a video: the mean over its clips (paper 4.4, Testing).

Legend: V videos, K classes, N clips.
"""

import numpy as np


class VideoScores:
    """Sums clip scores video by video, so that memory does not grow with the number of clips."""

    def __init__(self, num_videos: int, num_classes: int) -> None:
        """Start with no clip for each of `num_videos` videos."""
        self._sum_VK = np.zeros((num_videos, num_classes))
        self.num_clips_V = np.zeros(num_videos, np.int64)

    def add(self, video_N: np.ndarray, score_NK: np.ndarray) -> None:
        """Add N clips: the video each belongs to (0-based), and its scores."""
        np.add.at(self._sum_VK, video_N, score_NK)
        np.add.at(self.num_clips_V, video_N, 1)

    @property
    def is_scored_V(self) -> np.ndarray:
        """Which videos have at least one clip."""
        return self.num_clips_V > 0

    def mean_VK(self) -> np.ndarray:
        """Give the mean score of every video; zeros where a video has no clip."""
        return self._sum_VK / np.maximum(self.num_clips_V, 1)[:, None]
