"""Two rows of a table, tested with the same seeds on the same videos, become a difference and its p-value."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.compare.rows import Row
from pipelines.tracking.recorded import RecordedRun, fetch_artifact

_SCORES = "scores.parquet"
_NUM_RESAMPLES = 9999
_MOST_IN_ALL_WAYS = 13  # 2^13 ways are fewer than are drawn otherwise
_SIGNS_AT_ONCE = 1_000_000  # 8 MB of them


class PairedDifference(NamedTuple):
    """How much more often one row is right than another, over the same videos.

    Attributes:
        difference: of accuracies, each the mean over seeds.
        p_value: two-sided, of a permutation test over videos: how often chance alone gives a difference this large. It
            covers the choice of videos, but not the choice of seeds.
        num_videos: videos that both were tested on.
    """

    difference: float
    p_value: float
    num_videos: int


def paired_differences(rows: Sequence[Row], *, tracking_uri: str) -> dict[str, PairedDifference]:
    """Compare rows with the first one, video by video: label of a row -> its difference.

    Rows that were not tested, or have other seeds, folds or videos than the first, are left out.
    """
    first = rows[0]
    candidates = [row for row in rows[1:] if (row.seeds, row.folds) == (first.seeds, first.folds)]
    of_first = _accuracy_by_video(first, tracking_uri) if candidates else None
    if of_first is None:
        return {}
    differences: dict[str, list[float]] = {}
    for row in candidates:
        ours = _accuracy_by_video(row, tracking_uri)
        if ours is not None and ours.keys() == of_first.keys():
            differences[row.label] = [ours[video_id] - of_first[video_id] for video_id in of_first]
    if not differences:
        return {}
    difference_RV = np.array(list(differences.values()))
    return {
        label: PairedDifference(float(difference_V.mean()), float(p_value), len(difference_V))
        for label, difference_V, p_value in zip(
            differences, difference_RV, permutation_p_values(difference_RV), strict=True
        )
    }


def permutation_p_values(difference_RV: np.ndarray) -> np.ndarray:
    """Two-sided p-values (R,) of the means of paired differences, by changing signs (one way counts as seen).

    If few videos of a row differ, all ways are taken; otherwise random ways, the same for all rows.

    Args:
        difference_RV: for each of R rows, one difference per video (V).
    """
    is_few_R = np.count_nonzero(difference_RV, axis=1) <= _MOST_IN_ALL_WAYS
    p_value_R = np.empty(len(difference_RV))
    for row in np.flatnonzero(is_few_R):
        moved_V = difference_RV[row][difference_RV[row] != 0]
        sign_WV = np.array(list(itertools.product((-1, 1), repeat=len(moved_V))))
        p_value_R[row] = _as_extreme(sign_WV, moved_V[None]).mean()
    many_RV = difference_RV[~is_few_R]
    if len(many_RV):
        rng = np.random.default_rng(0)
        at_once = max(1, _SIGNS_AT_ONCE // many_RV.shape[1])
        num_extreme_R = np.ones(len(many_RV))
        for first in range(0, _NUM_RESAMPLES, at_once):
            num_ways = min(at_once, _NUM_RESAMPLES - first)
            sign_WV = 2 * rng.integers(0, 2, (num_ways, many_RV.shape[1]), np.int8) - 1
            num_extreme_R += _as_extreme(sign_WV, many_RV).sum(axis=0)
        p_value_R[~is_few_R] = num_extreme_R / (1 + _NUM_RESAMPLES)
    return p_value_R


def _as_extreme(sign_WV: np.ndarray, difference_RV: np.ndarray) -> np.ndarray:
    """Whether a row's sum with these signs is as far from zero as with its own (W, R), up to rounding."""
    sum_WR = sign_WV.astype(np.float64) @ difference_RV.T
    return np.abs(sum_WR) >= np.abs(difference_RV.sum(axis=1)) - 1e-9


def _accuracy_by_video(row: Row, tracking_uri: str) -> dict[str, float] | None:
    """For each video, the share of the row's tests that were right; None if a test has no scores."""
    correct: dict[str, list[bool]] = {}
    for each in row.runs:
        scores = None if each.test is None else _read_scores(tracking_uri, each.test)
        if scores is None:
            return None
        for video_id, is_correct in zip(*scores, strict=True):
            correct.setdefault(video_id, []).append(is_correct)
    return {video_id: sum(of_video) / len(of_video) for video_id, of_video in correct.items()}


def _read_scores(tracking_uri: str, test: RecordedRun) -> tuple[Sequence[str], Sequence[bool]] | None:
    path = fetch_artifact(tracking_uri, test, _SCORES)
    if path is None:
        return None
    table = pq.read_table(path, columns=["video_id", "label", "predicted"])
    is_correct = pc.equal(table.column("label"), table.column("predicted"))
    return table.column("video_id").to_pylist(), is_correct.to_pylist()
