import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from t3d_core.evaluation.metrics import num_correct_top_k, top_k_accuracy


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


def test_top_5_of_fewer_than_5_classes_is_1():
    assert top_k_accuracy(np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]), np.array([2, 0]), k=5) == 1.0


@pytest.mark.parametrize(("k", "accuracy"), [(1, 0.25), (2, 0.5), (3, 1.0)])
def test_accuracy_is_the_share_of_all_examples(k, accuracy):
    score_NK = np.array([[0.6, 0.3, 0.1]] * 4)
    assert top_k_accuracy(score_NK, np.array([0, 1, 2, 2]), k=k) == accuracy
