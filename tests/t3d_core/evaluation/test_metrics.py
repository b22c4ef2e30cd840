import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from t3d_core.evaluation.metrics import accuracy_interval, is_correct_top_k, num_correct_top_k, predicted_classes


@st.composite
def scores_and_labels(draw, *, unique):
    num_examples, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    if unique:
        rows = [draw(st.permutations(range(num_classes))) for _ in range(num_examples)]
        score_NK = np.array(rows, dtype=np.float32)
    else:
        score_NK = draw(arrays(np.float32, (num_examples, num_classes), elements=st.integers(0, 2).map(float)))
    return score_NK, draw(arrays(np.int64, num_examples, elements=st.integers(0, num_classes - 1)))


@given(scored=scores_and_labels(unique=True), k=st.integers(1, 7))
@settings(deadline=None)
def test_distinct_scores_are_counted_as_torchs_topk_does(scored, k):
    score_NK, label_N = scored
    top_Nk = torch.from_numpy(score_NK).topk(min(k, score_NK.shape[1]), dim=1).indices.numpy()
    assert num_correct_top_k(score_NK, label_N, k=k) == (top_Nk == label_N[:, None]).any(axis=1).sum()


@given(scored=scores_and_labels(unique=False), k=st.integers(1, 7))
@settings(deadline=None)
def test_a_tie_counts_against_the_label(scored, k):
    score_NK, label_N = scored
    expected = 0
    for scores, label in zip(score_NK.tolist(), label_N, strict=True):
        others = scores[:label] + scores[label + 1 :]
        expected += sum(other >= scores[label] for other in others) < k
    assert num_correct_top_k(score_NK, label_N, k=k) == expected


def test_constant_scores_earn_nothing():
    assert num_correct_top_k(np.zeros((3, 6)), np.array([0, 1, 5]), k=5) == 0


def test_scores_that_are_not_numbers_earn_nothing():
    assert num_correct_top_k(np.full((3, 6), np.nan), np.array([0, 1, 5]), k=5) == 0


def test_top_5_of_fewer_than_5_classes_is_always_right():
    assert num_correct_top_k(np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]), np.array([2, 0]), k=5) == 2


@pytest.mark.parametrize(("k", "num_correct"), [(1, 1), (2, 2), (3, 4)])
def test_examples_are_counted_one_by_one(k, num_correct):
    score_NK = np.array([[0.6, 0.3, 0.1]] * 4)
    assert num_correct_top_k(score_NK, np.array([0, 1, 2, 2]), k=k) == num_correct


@given(scored=scores_and_labels(unique=False))
@settings(deadline=None)
def test_a_prediction_is_a_highest_score_and_right_just_where_top_1_is(scored):
    score_NK, label_N = scored
    predicted_N = predicted_classes(score_NK, label_N)
    assert np.array_equal(predicted_N == label_N, is_correct_top_k(score_NK, label_N, k=1))
    assert np.array_equal(score_NK[np.arange(len(label_N)), predicted_N], score_NK.max(axis=1))


@given(num_correct=st.integers(0, 300), num_wrong=st.integers(0, 300))
@settings(deadline=None)
def test_the_interval_holds_the_rates_whose_test_would_not_reject_what_was_found(num_correct, num_wrong):
    """Wilson's score interval: its ends are the rates p with (found - p)^2 = z^2 p (1 - p) / n."""
    num_examples = max(1, num_correct + num_wrong)
    found = num_correct / num_examples
    low, high = accuracy_interval(num_correct, num_examples)
    assert 0 <= low <= found <= high <= 1
    for end in (low, high):
        assert (found - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / num_examples, abs=1e-6)


def test_the_interval_of_known_numbers():
    # Newcombe 1998, Table I: 81 of 263.
    assert accuracy_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert accuracy_interval(81, 263, confidence=0.99) > accuracy_interval(81, 263, confidence=0.999)
