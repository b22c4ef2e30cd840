"""Two rows of a table, tested with the same seeds on the same videos, become a difference and its p-value."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.stats import permutation_test

from pipelines import tracking
from pipelines.compare_runs import Row

_SCORES = "scores.parquet"
_NUM_RESAMPLES = 9999


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


def paired_difference(row: Row, other: Row, *, tracking_uri: str) -> PairedDifference | None:
    """Compare two rows video by video; none where seeds, folds or videos do not match, or were not tested."""
    if row.seeds != other.seeds or row.folds != other.folds:
        return None
    ours, others = (_correct_by_video(each, tracking_uri) for each in (row, other))
    if ours is None or others is None or ours.keys() != others.keys():
        return None
    difference_V = np.array([np.mean(ours[video_id]) - np.mean(others[video_id]) for video_id in ours])
    if not difference_V.any():
        return PairedDifference(0.0, 1.0, len(difference_V))
    test = permutation_test(
        (difference_V,),
        np.mean,
        permutation_type="samples",
        n_resamples=_NUM_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return PairedDifference(float(difference_V.mean()), float(test.pvalue), len(difference_V))


def _correct_by_video(row: Row, tracking_uri: str) -> dict[str, list[float]] | None:
    """Of each video, whether each of the row's tests was right; none where a test has no scores."""
    found: dict[str, list[float]] = {}
    for each in row.runs:
        scores = None if each.test is None else _read_scores(tracking_uri, each.test.run_id)
        if scores is None:
            return None
        for video_id, is_correct in zip(*scores, strict=True):
            found.setdefault(video_id, []).append(float(is_correct))
    return found


@cache
def _read_scores(tracking_uri: str, run_id: str) -> tuple[Sequence[str], Sequence[bool]] | None:
    path = tracking.fetch_artifact(tracking_uri, run_id, _SCORES)
    if path is None:
        return None
    table = pq.read_table(path, columns=["video_id", "label", "predicted"])
    is_correct = pc.equal(table.column("label"), table.column("predicted"))
    return table.column("video_id").to_pylist(), is_correct.to_pylist()
