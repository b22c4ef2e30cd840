"""Two rows of a table, tested with the same seeds on the same videos, become a difference and its p-value."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import permutation_test

from pipelines import tracking
from pipelines.compare_runs import Row
from pipelines.tracking import RecordedRun

_SCORES = "scores.parquet"
_NUM_RESAMPLES = 9999
_SIGNS_AT_ONCE = 500_000  # of all videos of some ways: a few tens of MB


class PairedDifference(NamedTuple):
    """How much more often one row is right than another, over the same videos.

    Attributes:
        difference: of accuracies, each the mean over seeds.
        p_value: two-sided, of a permutation test over videos: how often chance alone makes so large a difference. It
            knows of other videos, and of other seeds only what the seeds at hand show.
        num_videos: that both were tested on.
    """

    difference: float
    p_value: float
    num_videos: int


def paired_differences(rows: Sequence[Row], *, tracking_uri: str) -> dict[str, PairedDifference]:
    """Compare rows with the first one, video by video: label of a row -> its difference.

    Rows are left out whose seeds, folds or videos are not those of the first, or that were not tested.
    """
    first, found = rows[0], {}
    candidates = [row for row in rows[1:] if (row.seeds, row.folds) == (first.seeds, first.folds)]
    of_first = _correct_by_video(first, tracking_uri) if candidates else None
    for row in candidates if of_first else ():
        ours = _correct_by_video(row, tracking_uri)
        if of_first and ours and ours.keys() == of_first.keys():
            difference_V = np.array([np.mean(ours[video_id]) - np.mean(of_first[video_id]) for video_id in ours])
            found[row.label] = PairedDifference(
                float(difference_V.mean()), permutation_p_value(difference_V), len(difference_V)
            )
    return found


def permutation_p_value(difference_V: np.ndarray) -> float:
    """Two-sided p-value of the mean of paired differences, by changing their signs at random (one way counts as seen).

    All 2^V ways where there are no more than are drawn otherwise.

    Args:
        difference_V: one for each video; those that are 0 say nothing.
    """
    moved_V = difference_V[difference_V != 0]
    if not len(moved_V):
        return 1.0
    test = permutation_test(
        (moved_V,),
        np.sum,
        permutation_type="samples",
        n_resamples=_NUM_RESAMPLES,
        batch=max(1, _SIGNS_AT_ONCE // len(moved_V)),
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def _correct_by_video(row: Row, tracking_uri: str) -> dict[str, list[float]] | None:
    """Of each video, whether each of the row's tests was right; none where a test has no scores."""
    found: dict[str, list[float]] = {}
    for each in row.runs:
        scores = None if each.test is None else _read_scores(tracking_uri, each.test)
        if scores is None:
            return None
        for video_id, is_correct in zip(*scores, strict=True):
            found.setdefault(video_id, []).append(float(is_correct))
    return found


def _read_scores(tracking_uri: str, test: RecordedRun) -> tuple[Sequence[str], Sequence[bool]] | None:
    path = tracking.fetch_artifact(tracking_uri, test, _SCORES)
    if path is None:
        return None
    table = pq.read_table(path, columns=["video_id", "label", "predicted"])
    is_correct = pc.equal(table.column("label"), table.column("predicted"))
    return table.column("video_id").to_pylist(), is_correct.to_pylist()
