"""Scores and labels become accuracies in [0, 1].

Legend: N examples, K classes.
"""

import numpy as np


def num_correct_top_k(score_NK: np.ndarray, label_N: np.ndarray, *, k: int) -> int:
    """Count the examples whose label is among the k highest scores.

    A tie counts against the label, so that constant scores earn nothing (unless k is K), and so does a NaN.
    """
    own_N1 = np.take_along_axis(score_NK, label_N[:, None], axis=1)
    num_below_N = (score_NK < own_N1).sum(axis=1)
    return int((num_below_N >= score_NK.shape[1] - k).sum())


def top_k_accuracy(score_NK: np.ndarray, label_N: np.ndarray, *, k: int) -> float:
    """Give the share of examples whose label is among the k highest scores; N must be at least 1."""
    return num_correct_top_k(score_NK, label_N, k=k) / len(label_N)
