"""The linear classifier of probes and baselines on features where the right answer is known."""

import numpy as np
import pytest

from t3d_core.evaluation.linear_classifier import linear_scores


def test_classes_that_one_feature_separates_are_told_apart_whatever_the_scale_of_features():
    rng = np.random.default_rng(0)
    label_N = np.repeat([0, 2], 20)
    feature_ND = np.stack([1e-6 * (label_N + rng.normal(0, 0.1, 40)), 1e3 * rng.normal(size=40)], axis=1)
    score_MK = linear_scores(feature_ND[::2], label_N[::2], feature_ND[1::2], num_classes=4)
    assert score_MK.argmax(axis=1).tolist() == label_N[1::2].tolist()
    np.testing.assert_allclose(score_MK.sum(axis=1), 1)
    assert (score_MK[:, [1, 3]] == 0).all(), "these classes have no example"


def test_the_same_examples_give_the_same_scores_bit_by_bit():
    rng = np.random.default_rng(0)
    arguments = rng.normal(size=(30, 50)), rng.integers(3, size=30), rng.normal(size=(10, 50))
    first, second = (linear_scores(*arguments, num_classes=3) for _ in range(2))
    assert (first == second).all()


def test_what_cannot_be_learned_is_refused():
    feature_ND = np.ones((4, 2))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        linear_scores(feature_ND, np.zeros(4, int), feature_ND, num_classes=2)
    with pytest.raises(ValueError, match="finite features"):
        linear_scores(feature_ND, np.array([0, 0, 1, 1]), feature_ND * np.nan, num_classes=2)
