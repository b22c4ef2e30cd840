"""Two ways to train, tested with the same seeds on the same sources, become an effect, its interval and a verdict.

Chance enters twice: which sources the tests hold, and which seeds were trained. The interval covers both, and a verdict
needs them. Not in the paper, whose tables have one run a row.

Legend: S sources, R seeds, W resamples.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from t3d_core.evaluation.intervals import Interval
from t3d_core.evaluation.paired_test import sign_flip_p_values

Verdict = Literal["supported", "not supported", "undecided here"]
_RESAMPLES = 4000
_CONFIDENCE = 0.95


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

    The interval resamples sources and seeds at once (Owen's pigeonhole bootstrap, 2007). It is wide with few of either:
    that of one source is -1 to 1, and one seed is taken as if all seeds were like it.

    Args:
        difference_SR: differences of accuracy on the videos of a source, with one seed.
        num_videos_S: videos of each source.
    """
    num_sources, num_seeds = difference_SR.shape
    share_S = num_videos_S / num_videos_S.sum()
    mean_S = difference_SR.mean(axis=1)
    [p_value] = sign_flip_p_values((share_S * mean_S)[None])
    interval = Interval(-1.0, 1.0)
    if num_sources > 1:
        rng = np.random.default_rng(0)
        times_WS = rng.multinomial(num_sources, np.full(num_sources, 1 / num_sources), _RESAMPLES)
        times_WR = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), _RESAMPLES)
        weight_WS = times_WS * num_videos_S
        drawn_W = np.einsum("ws,sr,wr->w", weight_WS, difference_SR, times_WR / num_seeds) / weight_WS.sum(axis=1)
        tail = (1 - _CONFIDENCE) / 2
        interval = Interval(*(float(end) for end in np.quantile(drawn_W, [tail, 1 - tail])))
    return Effect(float(share_S @ mean_S), interval, float(p_value), num_sources, num_seeds)


def verdict_of(effect: Effect, *, adjusted_p_value: float, smallest: float) -> Verdict:
    """Say whether a claim that one way is better is supported.

    It is if the interval lies above 0 and the p-value of the table is below 0.05, and at least 3 seeds were trained. It
    is not if the interval lies below `smallest`, the least difference that anybody would care for. Else the trials
    were too few.
    """
    if effect.num_seeds >= 3 and effect.interval.low > 0 and adjusted_p_value < 1 - _CONFIDENCE:
        return "supported"
    if effect.num_seeds >= 3 and effect.interval.high < smallest:
        return "not supported"
    return "undecided here"
