import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from t3d_core.evaluation.metrics import is_correct_top_k, predicted_classes


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
    assert is_correct_top_k(score_NK, label_N, k=k).sum() == (top_Nk == label_N[:, None]).any(axis=1).sum()


@given(scored=scores_and_labels(unique=False), k=st.integers(1, 7))
@settings(deadline=None)
def test_a_tie_counts_against_the_label(scored, k):
    score_NK, label_N = scored
    expected = 0
    for scores, label in zip(score_NK.tolist(), label_N, strict=True):
        others = scores[:label] + scores[label + 1 :]
        expected += sum(other >= scores[label] for other in others) < k
    assert is_correct_top_k(score_NK, label_N, k=k).sum() == expected


def test_constant_scores_earn_nothing():
    assert is_correct_top_k(np.zeros((3, 6)), np.array([0, 1, 5]), k=5).sum() == 0


def test_scores_that_are_not_numbers_earn_nothing():
    assert is_correct_top_k(np.full((3, 6), np.nan), np.array([0, 1, 5]), k=5).sum() == 0


def test_top_5_of_fewer_than_5_classes_is_always_right():
    assert is_correct_top_k(np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]), np.array([2, 0]), k=5).sum() == 2


@pytest.mark.parametrize(("k", "num_correct"), [(1, 1), (2, 2), (3, 4)])
def test_examples_are_counted_one_by_one(k, num_correct):
    score_NK = np.array([[0.6, 0.3, 0.1]] * 4)
    assert is_correct_top_k(score_NK, np.array([0, 1, 2, 2]), k=k).sum() == num_correct


@given(scored=scores_and_labels(unique=False))
@settings(deadline=None)
def test_a_prediction_is_a_highest_score_and_right_just_where_top_1_is(scored):
    score_NK, label_N = scored
    predicted_N = predicted_classes(score_NK, label_N)
    assert np.array_equal(predicted_N == label_N, is_correct_top_k(score_NK, label_N, k=1))
    assert np.array_equal(score_NK[np.arange(len(label_N)), predicted_N], score_NK.max(axis=1))
