"""Scores and labels become accuracies in [0, 1].

Legend: N examples, K classes.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


def is_correct_top_k(score_NK: np.ndarray, label_N: np.ndarray, *, k: int) -> np.ndarray:
    """Whether the label of each example is among its k highest scores (N,).

    A tie counts against the label, so that constant scores earn nothing (unless k is K), and so does a NaN.
    """
    own_N1 = np.take_along_axis(score_NK, label_N[:, None], axis=1)
    num_below_N = (score_NK < own_N1).sum(axis=1)
    return num_below_N >= score_NK.shape[1] - k


def num_correct_top_k(score_NK: np.ndarray, label_N: np.ndarray, *, k: int) -> int:
    """Count the examples whose label is among the k highest scores, as in `is_correct_top_k`."""
    return int(is_correct_top_k(score_NK, label_N, k=k).sum())


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


class Interval(NamedTuple):
    """A confidence interval, both ends in [0, 1]."""

    low: float
    high: float


def accuracy_interval(num_correct: int, num_examples: int, *, confidence: float = 0.95) -> Interval:
    """Give Wilson's interval of an accuracy: how far chance alone may have moved it, with so few examples.

    The examples are treated as independent. Videos of one source are not, so the interval tends to be too narrow.

    Args:
        num_correct: correct ones of `num_examples`.
        num_examples: at least 1.
        confidence: in (0, 1).
    """
    interval = binomtest(num_correct, num_examples).proportion_ci(confidence, method="wilson")
    return Interval(float(interval.low), float(interval.high))
