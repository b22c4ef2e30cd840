"""How sure a difference between two classifiers is."""

import numpy as np
import pytest
from scipy import stats

from t3d_core.evaluation.paired_test import holm_adjusted, sign_flip_p_values
from tests.t3d_core.evaluation.grouped_videos import grouped, ucf101_sources


def sums_by_source(difference_RV, source_V):
    """Sums (R, S); the videos of a source lie side by side."""
    return np.add.reduceat(difference_RV, np.flatnonzero(np.diff(source_V, prepend=-1)), axis=1)


@pytest.mark.parametrize("num_sources", [3, 12, 2000])
def test_of_single_videos_that_are_right_or_wrong_it_is_the_sign_test(num_sources):
    rng = np.random.default_rng(num_sources)
    difference_RS = rng.choice([-1.0, 0.0, 1.0], (4, num_sources), p=[0.28, 0.4, 0.32])
    difference_RS[-1] = 0.0
    expected = [
        stats.binomtest(int((row_S > 0).sum()), moved).pvalue if (moved := int((row_S != 0).sum())) else 1.0
        for row_S in difference_RS
    ]
    assert sign_flip_p_values(difference_RS) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("num_moved", [0, 1, 2, 6, 13])
def test_where_few_sources_differ_all_ways_are_taken(num_moved):
    difference_RS = np.zeros((2, 100))
    difference_RS[0, 10 : 10 + num_moved] = 1 / 3
    assert sign_flip_p_values(difference_RS) == pytest.approx([min(1.0, 2 * 0.5**num_moved), 1.0], rel=1e-12)
    assert sign_flip_p_values(difference_RS[:, :1]) == pytest.approx([1.0, 1.0])


def test_a_source_whose_differences_cancel_up_to_rounding_does_not_differ():
    difference_RS = np.array([[0.1 + 0.2 - 0.3] + [1e-4] * 5])
    assert sign_flip_p_values(difference_RS) == pytest.approx([2 / 2**5], rel=1e-12)


def test_differences_of_means_are_tested_as_by_scipy():
    difference_RS = np.random.default_rng(0).choice(np.arange(-3, 4) / 3, (3, 60)) + np.array([[0.0], [0.1], [0.3]])
    expected = [
        stats.permutation_test((row_S,), np.mean, permutation_type="samples", n_resamples=9999, rng=1).pvalue
        for row_S in difference_RS
    ]
    assert sign_flip_p_values(difference_RS) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("correlation", [0, 0.09, 0.19, 0.31])
def test_equal_classifiers_differ_in_5_of_100_comparisons_however_alike_the_videos_of_a_source_are(correlation):
    source_V = ucf101_sources()
    rng = np.random.default_rng(1)
    difference_RV = grouped(rng, source_V, {-1.0: 0.1, 0.0: 0.8, 1.0: 0.1}, correlation, num_rows=2000)
    false_alarms = sign_flip_p_values(sums_by_source(difference_RV, source_V)) < 0.05
    assert 0.04 <= false_alarms.mean() <= 0.06


@pytest.mark.parametrize("num_rows", [4, 8])
def test_a_table_of_equal_rows_shows_a_difference_in_5_of_100_tables(num_rows):
    """500 videos of 100 sources, some harder than others for every classifier, with a reference that was fixed."""
    rng = np.random.default_rng(2)
    num_tables, source_V = 1500, np.repeat(np.arange(100), 5)
    found = []
    for _ in range(num_tables):
        ability_V = rng.random(100)[source_V]
        is_correct_RV = (rng.random((num_rows, 500)) < ability_V).astype(float)
        found.append(sums_by_source(is_correct_RV[1:] - is_correct_RV[0], source_V))
    p_value_TR = sign_flip_p_values(np.concatenate(found)).reshape(num_tables, num_rows - 1)
    is_alarm_T = np.array([(holm_adjusted(p_value_R) < 0.05).any() for p_value_R in p_value_TR])
    assert 0.02 <= is_alarm_T.mean() <= 0.06
    assert (p_value_TR < 0.05).any(axis=1).mean() > 0.09, "unadjusted, more tables than 6 in 100 show one"


def test_holms_adjustment_of_known_numbers():
    # Holm 1979: the smallest counts as often as there are, the next once less; none falls below a smaller one.
    assert holm_adjusted(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted(np.array([0.5, 0.9])) == pytest.approx([1, 1])
    assert holm_adjusted(np.array([0.2])) == pytest.approx([0.2])
