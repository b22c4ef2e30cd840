"""Splits are known by the names that people give them."""

import pytest

from t3d_core.datasets.split_names import split_named


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "val") for name in ("val", "valid", "validate", "validation", "Val", "VALIDATION", " val ")),
        *((name, "train") for name in ("train", "Train", "training", "training_set")),
        *((name, "test") for name in ("test", "TEST", "testing", "Test Set")),
        ("unused", "unused"),
        *((name, None) for name in ("", "trainer", "dev", "contest", "run")),
    ],
)
def test_a_name_means_a_split_in_any_letter_case_or_none(name, split):
    assert split_named(name) == split
