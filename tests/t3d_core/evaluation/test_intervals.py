"""How far chance may have moved a measure of examples that come in groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d_core.evaluation.intervals import accuracy_interval, grouped_interval
from tests.t3d_core.evaluation.grouped_videos import grouped, ucf101_sources


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def interval_of(num_correct, num_examples, **options):
    """Of examples that are each their own group."""
    return accuracy_interval(np.arange(num_examples) < num_correct, np.arange(num_examples), **options)


@given(num_correct=st.integers(0, 300), num_wrong=st.integers(0, 300))
@settings(deadline=None)
def test_the_interval_holds_the_rates_whose_test_would_not_reject_what_was_found(num_correct, num_wrong):
    """Wilson's score interval: its ends are the rates p with (found - p)^2 = z^2 p (1 - p) / n."""
    num_examples = max(1, num_correct + num_wrong)
    found = num_correct / num_examples
    low, high = interval_of(num_correct, num_examples)
    assert 0 <= low <= found <= high <= 1
    for end in (low, high):
        assert (found - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / num_examples, abs=1e-6)


def test_the_interval_of_known_numbers():
    # Newcombe 1998, Table I: 81 of 263.
    assert interval_of(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert interval_of(81, 263, confidence=0.99) > interval_of(81, 263, confidence=0.999)


@pytest.mark.parametrize("accuracy", [0.7, 0.9])
@pytest.mark.parametrize("correlation", [0, 0.09, 0.19, 0.31])
def test_of_videos_in_groups_95_of_100_intervals_hold_the_true_accuracy(accuracy, correlation, rng):
    source_V = ucf101_sources()
    found = [
        accuracy_interval(is_correct_V == 1, source_V)
        for is_correct_V in grouped(rng, source_V, {1: accuracy, 0: 1 - accuracy}, correlation, num_rows=1000)
    ]
    assert 0.93 <= np.mean([low <= accuracy <= high for low, high in found]) <= 0.97


@pytest.mark.parametrize(
    ("num_groups", "num_each", "accuracy", "correlation", "least"),
    [(5, 10, 0.25, 0.1, 0.93), (6, 10, 0.6, 0.3, 0.93), (15, 8, 0.97, 0.2, 0.93), (10, 10, 0.9, 0.3, 0.86)],
)
def test_of_few_groups_the_interval_stays_near_its_promise(num_groups, num_each, accuracy, correlation, least, rng):
    group_N = np.repeat(np.arange(num_groups), num_each)
    found = [
        accuracy_interval(is_correct_N == 1, group_N)
        for is_correct_N in grouped(rng, group_N, {1: accuracy, 0: 1 - accuracy}, correlation, num_rows=2000)
    ]
    assert np.mean([low <= accuracy <= high for low, high in found]) >= least


@pytest.mark.parametrize("is_right", [True, False])
def test_where_all_are_right_or_all_wrong_each_group_counts_as_one_example(is_right):
    group_N = np.repeat(np.arange(20), 5)
    low, high = accuracy_interval(np.full(100, is_right), group_N)
    assert (high if is_right else low) == is_right
    assert 0.15 < high - low < 0.2  # Student's t for 20: 20 of 20 by Wilson are from 0.84


def test_one_group_says_nothing_of_others():
    assert accuracy_interval(np.array([True, True, False]), np.zeros(3, int)) == (0, 1)
    assert accuracy_interval(np.array([True]), np.zeros(1, int)).low > 0.2  # an example of a group of its own


def test_groups_that_are_alike_in_all_but_name_narrow_nothing(rng):
    is_correct_G = rng.random(40) < 0.7
    copied = accuracy_interval(np.repeat(is_correct_G, 10), np.repeat(np.arange(40), 10))
    once = accuracy_interval(is_correct_G, np.arange(40))
    assert copied == pytest.approx(once, abs=0.01)


def test_a_resampled_interval_is_that_of_single_examples_where_each_is_its_own_group(rng):
    hit_N = rng.random(400) < 0.7
    found = grouped_interval(lambda weight_N: float(np.average(hit_N, weights=weight_N)), np.arange(400))
    assert found == pytest.approx(accuracy_interval(hit_N, np.arange(400)), abs=0.01)


def test_copies_of_an_example_do_not_narrow_a_resampled_interval(rng):
    hit_N = rng.random(40) < 0.7
    once, often = (
        grouped_interval(
            lambda weight_N, copies=copies: float(np.average(np.repeat(hit_N, copies), weights=weight_N)),
            np.repeat(np.arange(40), copies),
        )
        for copies in (1, 10)
    )
    assert often == pytest.approx(once, abs=0.02)
    assert all(np.isnan(grouped_interval(lambda _: 0.5, np.zeros(3, int))))


def test_an_example_of_two_groups_gets_how_often_either_was_drawn():
    seen = []
    grouped_interval(
        lambda first, second: seen.append((first, second)) or 0.5, np.array([0, 0, 1]), np.array([1, 2, 2])
    )
    for first, second in seen:
        assert first[0] == first[1]
        assert (first[2], second[1]) == (second[0], second[2])
        assert first[0] + first[2] + second[2] == 3
