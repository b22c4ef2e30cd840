"""Effects of simulated trials whose truth is known."""

import numpy as np
import pytest

from t3d_core.evaluation.effects import Effect, effect_of, verdict_of
from t3d_core.evaluation.intervals import Interval


def trial(rng, effect, *, num_sources=20, num_seeds=5, num_videos=6):
    """Differences whose true mean is `effect`: sources and seeds each move them, and so does each video."""
    expected_SR = effect + rng.normal(0, 0.1, (num_sources, 1)) + rng.normal(0, 0.05, (1, num_seeds))
    noise_SR = rng.normal(0, 0.5 / num_videos**0.5, (num_sources, num_seeds))
    return effect_of(expected_SR + noise_SR, np.full(num_sources, num_videos))


def test_an_effect_is_the_mean_over_videos():
    effect = effect_of(np.array([[1.0, 1.0], [0.0, 0.5]]), np.array([1, 3]))
    assert effect.difference == pytest.approx(0.25 * 1 + 0.75 * 0.25)
    assert (effect.num_sources, effect.num_seeds) == (2, 2)


@pytest.mark.parametrize(("num_sources", "num_videos"), [(20, 6), (5, 10)])
def test_the_interval_holds_the_truth_at_least_as_often_as_it_promises(num_sources, num_videos):
    rng = np.random.default_rng(0)
    found = [trial(rng, 0.1, num_sources=num_sources, num_videos=num_videos).interval for _ in range(400)]
    covered = np.mean([low <= 0.1 <= high for low, high in found])
    assert 0.94 < covered < 1
    assert np.mean([high - low for low, high in found]) < {20: 0.3, 5: 0.6}[num_sources]


def test_the_interval_covers_the_choice_of_seeds():
    rng = np.random.default_rng(0)
    per_seed_1R = rng.normal(0.1, 0.2, (1, 5))
    same_of_all = effect_of(np.repeat(per_seed_1R, 50, axis=0), np.ones(50, int))
    assert same_of_all.interval.high - same_of_all.interval.low > 2 * per_seed_1R.std() / 5**0.5


def test_one_source_says_nothing_of_others():
    assert effect_of(np.full((1, 5), 0.5), np.array([10])).interval == (-1, 1)


def test_a_verdict_needs_more_than_a_few_sources():
    for num_sources, verdict in ((4, "undecided here"), (5, "supported")):
        effect = Effect(0.1, Interval(0.05, 0.2), 0.01, num_sources, 5)
        assert verdict_of(effect, adjusted_p_value=0.01, smallest=0.05) == verdict


@pytest.mark.parametrize(
    ("interval", "p_value", "num_seeds", "verdict"),
    [
        ((0.05, 0.2), 0.01, 5, "supported"),
        ((0.05, 0.2), 0.20, 5, "undecided here"),
        ((0.05, 0.2), 0.01, 2, "undecided here"),
        ((0.0, 0.0), 1.0, 2, "undecided here"),
        ((-0.1, 0.04), 0.5, 5, "not supported"),
        ((-0.1, 0.2), 0.5, 5, "undecided here"),
        ((-0.4, -0.1), 0.01, 5, "not supported"),
    ],
)
def test_a_verdict_needs_an_interval_a_p_value_and_seeds(interval, p_value, num_seeds, verdict):
    effect = Effect(0.1, Interval(*interval), p_value, 20, num_seeds)
    assert verdict_of(effect, adjusted_p_value=p_value, smallest=0.05) == verdict
