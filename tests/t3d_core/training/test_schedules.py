"""The learning rate and the batch that it was meant for."""

import pytest

from t3d_core.training.schedules import linearly_scaled


@pytest.mark.parametrize(("base_batch_size", "expected"), [(None, 0.1), (64, 0.1), (32, 0.2), (256, 0.025)])
def test_the_learning_rate_is_scaled_only_where_a_base_is_given(base_batch_size, expected):
    assert linearly_scaled(0.1, global_batch_size=64, base_batch_size=base_batch_size) == pytest.approx(expected)
