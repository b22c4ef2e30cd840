"""Settings of a baseline that contradict each other."""

import pytest

from pipelines.baseline.config import BaselineConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"kind": "resnet18"}}, "teacher.num_frames is not given, and a baseline has no clip"),
        (
            {"teacher": {"kind": "resnet18", "num_frames": 4, "shared_crop": True}},
            "teacher.shared_crop true is for a student's crop",
        ),
        ({"scaling": {"num_workers": 0}}, "teacher runs in processes of its own: give 1 or more"),
        ({"data": {"split": "train"}}, "Input should be 'val' or 'test'"),
    ],
)
def test_settings_of_a_baseline_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BaselineConfig(**{"data": {}} | changes)


def test_shape_and_length_asks_nothing_of_a_teacher():
    assert BaselineConfig(data={}, kind="shape_and_length", teacher={"kind": "resnet18"}).teacher.num_frames is None
