"""Differences between rows, and how sure they are."""

import numpy as np
import pytest
from scipy import stats

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.compare.videos import permutation_p_values


@pytest.mark.parametrize("num_videos", [3, 12, 2000])
def test_the_permutation_test_of_right_and_wrong_is_the_sign_test(num_videos):
    rng = np.random.default_rng(num_videos)
    difference_RV = rng.choice([-1.0, 0.0, 1.0], (4, num_videos), p=[0.28, 0.4, 0.32])
    difference_RV[-1] = 0.0
    expected = [
        stats.binomtest(int((row_V > 0).sum()), moved).pvalue if (moved := int((row_V != 0).sum())) else 1.0
        for row_V in difference_RV
    ]
    assert permutation_p_values(difference_RV) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("num_moved", [0, 1, 2, 6, 13])
def test_where_few_videos_differ_all_ways_are_taken(num_moved):
    difference_RV = np.zeros((2, 100))
    difference_RV[0, 10 : 10 + num_moved] = 1 / 3
    assert permutation_p_values(difference_RV) == pytest.approx([min(1.0, 2 * 0.5**num_moved), 1.0], rel=1e-12)
    assert permutation_p_values(difference_RV[:, :1]) == pytest.approx([1.0, 1.0])


def test_differences_of_means_over_seeds_are_tested_as_by_scipy():
    difference_RV = np.random.default_rng(0).choice(np.arange(-3, 4) / 3, (3, 60)) + np.array([[0.0], [0.1], [0.3]])
    expected = [
        stats.permutation_test((row_V,), np.mean, permutation_type="samples", n_resamples=9999, rng=1).pvalue
        for row_V in difference_RV
    ]
    assert permutation_p_values(difference_RV) == pytest.approx(expected, abs=0.015)


def test_other_videos_are_not_compared_one_by_one(store):
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False])
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False, True], **{"model.kind": "c3d"})
    summary = run_compare(CompareConfig(tracking={"uri": store.uri}, output=store.folder / "report"))
    assert " - first" not in summary
