import numpy as np
import pytest

from t3d_core.evaluation.intervals import accuracy_interval
from t3d_core.evaluation.representation import probe_features, spread_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_features_that_tell_the_class_across_groups_are_classified_and_noise_is_not(rng):
    label_N, group_N = np.tile(np.arange(4), 30), np.repeat(np.arange(6), 20)
    told = np.eye(4)[label_N] + 0.05 * rng.normal(size=(120, 4))
    of_classes = probe_features(told, label_N, group_N)
    assert min(of_classes.linear_top1, of_classes.knn_top1) > 0.95
    of_noise = probe_features(rng.normal(size=(120, 4)), label_N, group_N)
    assert max(of_noise.linear_top1, of_noise.knn_top1) < 0.45  # chance 0.25


def test_the_interval_of_a_probe_is_over_groups(rng):
    """Two of six people are strangers to the others: what is right of one person is no proof for the next."""
    label_N, person_N = np.tile(np.arange(4), 30), np.repeat(np.arange(6), 20)
    is_strange_N = person_N < 2
    feature_ND = np.eye(4)[np.where(is_strange_N, (label_N + 1 + person_N) % 4, label_N)] + 0.05 * rng.normal(
        size=(120, 4)
    )
    found = probe_features(feature_ND, label_N, person_N)
    assert found.linear_top1 == pytest.approx(4 / 6)
    assert found.linear_interval == accuracy_interval(~is_strange_N, person_N)
    assert found.linear_interval.high - found.linear_interval.low > 0.5
    by_clip = accuracy_interval(~is_strange_N, np.arange(120))
    assert by_clip.high - by_clip.low < 0.2


def test_what_only_tells_the_group_earns_nothing(rng):
    """Each group has a class of its own and features of its own: within a group both are one, across groups nothing."""
    group_N = np.repeat(np.arange(10), 12)
    label_N = group_N % 2
    scene = rng.normal(size=(10, 5))[group_N] + 0.01 * rng.normal(size=(120, 5))
    accuracy = [probe_features(scene + rng.normal(size=(10, 5))[group_N], label_N, group_N).knn_top1 for _ in range(10)]
    assert np.mean(accuracy) < 0.7


@pytest.mark.parametrize(
    ("label_N", "group_N", "expected"),
    [
        ([0, 0], [0, 1], "at least 2 classes, got 1"),
        ([0, 0, 1, 1], [0, 1, 2, 2], r"at least 2 sources of every class; classes \[1\] have one"),
    ],
)
def test_a_probe_needs_two_classes_each_of_two_sources(label_N, group_N, expected, rng):
    with pytest.raises(ValueError, match=expected):
        probe_features(rng.normal(size=(len(label_N), 3)), np.array(label_N), np.array(group_N))


def test_a_probe_of_three_sources_never_learns_from_one_class_alone(rng):
    label_N, group_N = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert 0 <= probe_features(rng.normal(size=(6, 3)), label_N, group_N).linear_top1 <= 1
    with pytest.raises(ValueError, match="finite features"):
        probe_features(np.full((6, 3), np.nan), label_N, group_N)


def test_the_spread_tells_a_point_a_line_and_a_ball_apart(rng):
    ball, line = rng.normal(size=(4000, 8)), rng.normal(size=(4000, 1)) * np.eye(8)[0]
    point = np.ones((50, 8)) + 1e-9 * rng.normal(size=(50, 8))
    assert spread_of(ball).std == pytest.approx(1, abs=0.02)
    assert spread_of(ball).effective_rank == pytest.approx(8, abs=0.05)
    assert spread_of(line).effective_rank == pytest.approx(1)
    assert spread_of(point).std < 1e-6
    half = np.concatenate([rng.normal(size=(4000, 4)), np.zeros((4000, 4))], axis=1)
    assert spread_of(half).effective_rank == pytest.approx(4, abs=0.05)
