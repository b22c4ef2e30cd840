"""One source video becomes its scores: those of every clip, and their mean, as in testing (paper 4.4).

    file -> guard (a child decodes) -> views -> network, a batch at a time -> scores of clips -> mean score of the video

The child decodes the next batch while the network scores one: of a long video only scores, and features where they are
asked for, are kept in memory.

Legend: N clips, B views of a batch, K classes, D feature dimensions.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from t3d_core.errors import UserError
from t3d_core.prediction.clip_scorer import ScoredViews
from t3d_core.prediction.timeline import Timeline, make_timeline
from t3d_core.video.clip_reader import VideoView, ViewSampling
from t3d_core.video.container import VideoError
from t3d_core.video.decoding import ZERO_FRAMES


class ViewReader(Protocol):
    """Reads the views of a file, as `GuardedDecoder` does."""

    def read_views(self, path: str | os.PathLike[str], sampling: ViewSampling) -> Iterator[VideoView]:
        """As `clip_reader.read_views`."""
        ...


class ViewScorer(Protocol):
    """Scores views, as `ClipScorer` does, here or in another process."""

    @property
    def num_views(self) -> int:
        """Views of a batch."""
        ...

    def score_with_features(self, clip_BSTHWC: npt.NDArray[np.uint8]) -> ScoredViews:
        """Scores and features of up to `num_views` views."""
        ...


@dataclass(frozen=True)
class VideoPrediction:
    """The scores of one video; times are in seconds on the clock of the file.

    Attributes:
        score_K: float64, the mean over all views.
        score_NK: float32, the mean over the crops of each clip.
        start_N: float64, when the first frame of each clip is shown.
        end_N: float64, when its last frame ends.
        num_padded: frames that are made up, because the video is shorter than a clip.
        feature_ND: float32, the mean over the crops of each clip; None where features were not asked for.
    """

    score_K: npt.NDArray[np.float64]
    score_NK: npt.NDArray[np.float32]
    start_N: npt.NDArray[np.float64]
    end_N: npt.NDArray[np.float64]
    num_padded: int
    feature_ND: npt.NDArray[np.float32] | None = None

    def top(self, count: int) -> list[tuple[int, float]]:
        """The classes with the highest scores, as (index, score); of equal scores the first class comes first."""
        order = np.argsort(-self.score_K, kind="stable")[:count]
        return [(int(label), float(self.score_K[label])) for label in order]

    def timeline(self, *, window_seconds: float) -> Timeline:
        """Smooth the scores of the clips; the longest gap between clips of one stride ends no segment."""
        return make_timeline(
            self.start_N,
            self.end_N,
            self.score_NK,
            window_seconds=window_seconds,
            max_gap_seconds=float(max(0.0, np.max(self.start_N[1:] - self.end_N[:-1], initial=0.0))),
        )


def predict_video(
    path: str | os.PathLike[str],
    scorer: ViewScorer,
    sampling: ViewSampling,
    *,
    decoder: ViewReader,
    with_features: bool = False,
) -> VideoPrediction:
    """Score a video file of any length.

    Args:
        path: the file.
        scorer: holds the network; one without classes gives scores of no classes.
        sampling: which views are scored.
        decoder: reads the file.
        with_features: keep the features of the views, 4 D bytes for each.

    Raises:
        VideoError: the file cannot be read or decoded, or gives no view.
        UserError: the network gives scores or features that are not finite.
    """
    scored: list[ViewResults] = []
    with ThreadPoolExecutor(1) as ahead:
        batches = _batches(decoder.read_views(path, sampling), size=scorer.num_views)
        coming = ahead.submit(_next_of, batches)
        while batch := coming.result():
            coming = ahead.submit(_next_of, batches)
            scored.append(_score(batch, scorer, with_features=with_features))
    if not scored:
        raise VideoError(ZERO_FRAMES)
    return join_views(scored, num_crops=sampling.num_crops)


class ViewResults(NamedTuple):
    """Views of one video without their pixels.

    Attributes:
        score_BK: float32.
        feature_BD: float32; None where features were not asked for.
        start_B: float64, when the first frame of each view is shown.
        end_B: float64, when its last frame ends.
        num_padded: frames of all these views that are made up.
    """

    score_BK: npt.NDArray[np.float32]
    feature_BD: npt.NDArray[np.float32] | None
    start_B: npt.NDArray[np.float64]
    end_B: npt.NDArray[np.float64]
    num_padded: int


def join_views(parts: Sequence[ViewResults], *, num_crops: int) -> VideoPrediction:
    """Join all views of a video, at least one, in order of time, the crops of a clip next to each other."""
    score_BK = np.concatenate([part.score_BK for part in parts])
    total_K = np.zeros(score_BK.shape[1])
    for score_K in score_BK:  # one after the other, as in `evaluation.video_scores`: sums differ by their order
        total_K += score_K
    features = [part.feature_BD for part in parts if part.feature_BD is not None]
    return VideoPrediction(
        score_K=total_K / len(score_BK),
        score_NK=_mean_of_crops(score_BK, num_crops),
        start_N=np.concatenate([part.start_B for part in parts])[::num_crops],
        end_N=np.concatenate([part.end_B for part in parts])[::num_crops],
        num_padded=sum(part.num_padded for part in parts) // num_crops,
        feature_ND=_mean_of_crops(np.concatenate(features), num_crops) if features else None,
    )


def check_finite(scored: ScoredViews) -> None:
    """Refuse scores and features that mean nothing.

    Raises:
        UserError: some are not finite.
    """
    if not (np.isfinite(scored.score_BK).all() and np.isfinite(scored.feature_BD).all()):
        raise UserError(
            "the network gives scores or features that are not finite (NaN), so its weights are damaged, or too large "
            "for bf16: try --compute.precision fp32"
        )


def _batches(views: Iterator[VideoView], *, size: int) -> Iterator[Sequence[VideoView]]:
    while batch := list(itertools.islice(views, size)):
        yield batch


def _next_of(batches: Iterator[Sequence[VideoView]]) -> Sequence[VideoView]:
    """The next batch, empty after the last one; whatever the decoder refuses in a file is an error of the video."""
    try:
        return next(batches, ())
    except VideoError:
        raise
    except ValueError as error:
        raise VideoError(str(error)) from error


def _score(batch: Sequence[VideoView], scorer: ViewScorer, *, with_features: bool) -> ViewResults:
    scored = scorer.score_with_features(np.stack([view.clip_STHWC for view in batch]))
    check_finite(scored)
    return ViewResults(
        scored.score_BK,
        scored.feature_BD if with_features else None,
        np.array([view.start_seconds for view in batch]),
        np.array([view.end_seconds for view in batch]),
        sum(view.num_padded for view in batch),
    )


def _mean_of_crops(view_VX: npt.NDArray[np.float32], num_crops: int) -> npt.NDArray[np.float32]:
    """The mean over the crops of each clip, of V views, one clip after the other: (N, X)."""
    return view_VX.reshape(len(view_VX) // num_crops, num_crops, view_VX.shape[1]).mean(axis=1)
