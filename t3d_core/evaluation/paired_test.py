"""Differences between two classifiers on the same videos, summed by source, become p-values.

Two classifiers of equal worth could be exchanged on any source: the sign of its difference is chance. Videos of one
source keep one sign, because they are alike. With a sign for each of 3,783 videos of 707 sources, whose differences are
correlated by 0.31 within a source, equal classifiers would get a p below 0.05 four times too often.

Legend: R comparisons, S sources, W ways to give signs.
"""

import itertools

import numpy as np
import numpy.typing as npt

_NUM_RESAMPLES = 9999
_MOST_IN_ALL_WAYS = 13  # 2^13 ways are fewer than are drawn otherwise
_SIGNS_AT_ONCE = 1_000_000  # 8 MB of them
_ROUNDING = 1e-9  # relative to the largest difference of a comparison


def sign_flip_p_values(difference_RS: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Two-sided p-values (R,) of the sums of paired differences, by changing signs (one way counts as seen).

    If few sources of a comparison differ, all ways are taken; otherwise random ways, the same for all comparisons.

    Args:
        difference_RS: for each of R comparisons, the sum of the differences of each source (S).
    """
    largest_R1 = np.abs(difference_RS).max(axis=1, keepdims=True)
    difference_RS = difference_RS / np.where(largest_R1 > 0, largest_R1, 1)
    differs_RS = np.abs(difference_RS) > _ROUNDING
    is_few_R = differs_RS.sum(axis=1) <= _MOST_IN_ALL_WAYS
    p_value_R = np.empty(len(difference_RS))
    for row in np.flatnonzero(is_few_R):
        moved_S = difference_RS[row][differs_RS[row]]
        sign_WS = np.array(list(itertools.product((-1, 1), repeat=len(moved_S))))
        p_value_R[row] = _is_as_extreme(sign_WS, moved_S[None]).mean()
    if not is_few_R.all():
        p_value_R[~is_few_R] = _p_values_of_random_signs(difference_RS[~is_few_R])
    return p_value_R


def holm_adjusted(p_value_R: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Adjust p-values (R,) so that one below 0.05 among those of equal classifiers comes in 5 % of tables (Holm 1979).

    It holds whatever the comparisons have in common. Westfall and Young's max-T over the same signs, simulated on 200
    sources, finds 1 to 5 of 100 real differences more, but needs comparisons that change their signs together.
    """
    order = np.argsort(p_value_R, kind="stable")
    num_left = np.arange(len(p_value_R), 0, -1)
    adjusted = np.empty_like(p_value_R)
    adjusted[order] = np.minimum(np.maximum.accumulate(num_left * p_value_R[order]), 1)
    return adjusted


def _p_values_of_random_signs(difference_RS: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    rng = np.random.default_rng(0)
    num_sources = difference_RS.shape[1]
    at_once = max(1, _SIGNS_AT_ONCE // num_sources)
    num_extreme_R = np.ones(len(difference_RS))
    for first in range(0, _NUM_RESAMPLES, at_once):
        num_ways = min(at_once, _NUM_RESAMPLES - first)
        sign_WS = 2 * rng.integers(0, 2, (num_ways, num_sources), np.int8) - 1
        num_extreme_R += _is_as_extreme(sign_WS, difference_RS).sum(axis=0)
    return num_extreme_R / (1 + _NUM_RESAMPLES)


def _is_as_extreme(sign_WS: npt.NDArray[np.integer], difference_RS: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether a comparison's sum with these signs is as far from zero as with its own (W, R), up to rounding."""
    sum_WR = sign_WS.astype(np.float64) @ difference_RS.T
    return np.abs(sum_WR) >= np.abs(difference_RS.sum(axis=1)) - _ROUNDING
