"""Two ways to train, tested with the same seeds on the same sources, become an effect, its interval and a verdict.

Chance enters twice: which sources the tests hold, and which seeds were trained. The interval covers both, and a verdict
needs enough of both. Not in the paper, whose tables have one run a row.

Legend: S sources, R seeds.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from t3d_core.evaluation.intervals import Interval
from t3d_core.evaluation.paired_test import sign_flip_p_values

Verdict = Literal["supported", "not supported", "undecided here"]
_CONFIDENCE = 0.95
FEWEST_SOURCES, FEWEST_SEEDS = 5, 3
"""Below these a verdict would be of these sources, or of these seeds."""


class Effect(NamedTuple):
    """How much more often one way is right than the other, in [-1, 1].

    Attributes:
        difference: of accuracies over all tested videos, the mean over seeds.
        interval: 95 %, over sources and seeds.
        p_value: two-sided, by the signs of sources (see `paired_test`); it does not cover the choice of seeds.
        num_sources: S.
        num_seeds: R.
    """

    difference: float
    interval: Interval
    p_value: float
    num_sources: int
    num_seeds: int


def effect_of(difference_SR: npt.NDArray[np.floating], num_videos_S: npt.NDArray[np.integer]) -> Effect:
    """Measure the effect.

    The interval is Student's t with the variances over sources and over seeds added up, each with its own degrees of
    freedom (Welch and Satterthwaite). What varies from video to video counts in both, so the interval is rather too
    wide. That of one source is -1 to 1. With one seed it is of that seed alone. Coverage at 95 %, simulated with an
    effect that varies by 0.1 over sources and by 0.05 over seeds (2,000 trials): 0.978 of 5 sources of 10 videos with 5
    seeds, 0.966 of 20 sources of 6 videos with 5 seeds.

    Args:
        difference_SR: differences of accuracy on the videos of a source, with one seed.
        num_videos_S: videos of each source.
    """
    num_sources, num_seeds = difference_SR.shape
    share_S = num_videos_S / num_videos_S.sum()
    difference = float(share_S @ difference_SR.mean(axis=1))
    [p_value] = sign_flip_p_values((share_S * difference_SR.mean(axis=1))[None])
    interval = Interval(-1.0, 1.0)
    if num_sources > 1:
        beyond_S = share_S * (difference_SR.mean(axis=1) - difference)
        variances = [num_sources / (num_sources - 1) * float((beyond_S**2).sum())]
        degrees = [num_sources - 1]
        if num_seeds > 1:
            variances.append(float((share_S @ difference_SR).var(ddof=1)) / num_seeds)
            degrees.append(num_seeds - 1)
        half = _half_width(np.array(variances), np.array(degrees))
        interval = Interval(max(-1.0, difference - half), min(1.0, difference + half))
    return Effect(difference, interval, float(p_value), num_sources, num_seeds)


def _half_width(variance_C: npt.NDArray[np.floating], degrees_C: npt.NDArray[np.integer]) -> float:
    """Half of the interval of a mean whose variance has several components."""
    total = float(variance_C.sum())
    if total == 0:
        return 0.0
    degrees = total**2 / float((variance_C**2 / degrees_C).sum())
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, degrees)) * total**0.5


def verdict_of(effect: Effect, *, adjusted_p_value: float, smallest: float) -> Verdict:
    """Say whether a claim that one way is better is supported.

    It is if the interval lies above 0 and the p-value of the table is below 0.05. It is not if the interval lies below
    `smallest`, the least difference that anybody would care for. Else, or with fewer than 5 sources or 3 seeds, the
    trials were too few.
    """
    if effect.num_seeds < FEWEST_SEEDS or effect.num_sources < FEWEST_SOURCES:
        return "undecided here"
    if effect.interval.low > 0 and adjusted_p_value < 1 - _CONFIDENCE:
        return "supported"
    return "not supported" if effect.interval.high < smallest else "undecided here"
