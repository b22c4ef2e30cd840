"""Scores and labels become accuracies in [0, 1].

Legend: N examples, K classes.
"""

import numpy as np


def is_correct_top_k(score_NK: np.ndarray, label_N: np.ndarray, *, k: int) -> np.ndarray:
    """Whether the label of each example is among its k highest scores (N,).

    A tie counts against the label, so that constant scores earn nothing (unless k is K), and so does a NaN.
    """
    own_N1 = np.take_along_axis(score_NK, label_N[:, None], axis=1)
    num_below_N = (score_NK < own_N1).sum(axis=1)
    return num_below_N >= score_NK.shape[1] - k


def predicted_classes(score_NK: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Give the class of the highest score of each example (N,).

    If the label is one of several classes with the highest score, another of them is given: a prediction equals its
    label exactly where `is_correct_top_k` is true for k = 1.
    """
    if score_NK.shape[1] == 1:
        return np.zeros(len(label_N), np.int64)
    others_NK = score_NK.copy()
    np.put_along_axis(others_NK, label_N[:, None], -np.inf, axis=1)
    return np.where(is_correct_top_k(score_NK, label_N, k=1), label_N, others_NK.argmax(axis=1))
