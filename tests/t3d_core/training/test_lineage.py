from dataclasses import replace

import pytest

from t3d_core.training.lineage import EvaluatedVideos, TrainingStep, describe_lineage, has_some, sketch_of

UCF101 = [f"v_{number}" for number in range(13_320)]
TESTED = EvaluatedVideos(("ucf101",), fold=1, test_names=frozenset(UCF101[:3_783]))
STEP = TrainingStep("train", ("ucf101",), 1, is_labelled=True, sketch=sketch_of(UCF101[3_783:]))


@pytest.mark.parametrize(
    ("changes", "is_trained_on", "is_seen"),
    [
        ({}, False, False),
        ({"fold": 2}, True, False),
        ({"sketch": sketch_of(UCF101)}, True, False),
        ({"is_labelled": False}, False, False),
        ({"is_labelled": False, "fold": 2}, False, True),
        ({"is_labelled": False, "datasets": ("UCF-101",), "sketch": sketch_of(UCF101)}, False, True),
        ({"datasets": ("UCF-101",), "sketch": sketch_of(UCF101)}, False, True),
        ({"datasets": ("hmdb51",), "sketch": sketch_of(["a", "b"])}, False, False),
        ({"sketch": ()}, False, False),
    ],
)
def test_a_step_is_judged_by_its_labels_its_fold_and_its_videos(changes, is_trained_on, is_seen):
    step = replace(STEP, **changes)
    assert (TESTED.are_trained_on(step), TESTED.are_seen(step)) == (is_trained_on, is_seen)


def test_videos_that_validate_count_where_labels_were_learned():
    step = replace(STEP, sketch=sketch_of(UCF101[3_783:]))
    validated = EvaluatedVideos(("ucf101",), 1, frozenset(UCF101[:9]), val_names=frozenset(UCF101[5_000:7_000]))
    assert validated.are_trained_on(step)
    assert not validated.are_seen(replace(step, is_labelled=False))


def test_a_sketch_is_small_and_finds_a_part_of_what_was_trained_on():
    sketch = sketch_of(UCF101)
    assert len(" ".join(sketch)) < 12_000
    parts = [UCF101[first : first + 1332] for first in range(0, 13_320, 1332)]  # a tenth each
    assert all(has_some(sketch, part) for part in parts)
    assert not has_some(sketch, [f"other_{number}" for number in range(100_000)])


def test_the_test_set_of_ucf101_is_found_within_a_large_unlabelled_step_of_two_folders():
    tested, small = UCF101[:3_783], UCF101[:9]
    large = [f"other_{number}" for number in range(513_320 - len(tested))]
    assert has_some(sketch_of([*tested, *large]), tested)
    assert has_some(sketch_of(large, small), small)  # a small folder is not crowded out by a large one


def test_a_chain_is_described_from_its_oldest_step():
    steps = [replace(STEP, run_id="0123"), TrainingStep("transfer", ("a", "b"), 2, False, fingerprints=("f0", "f1"))]
    assert describe_lineage(steps) == (
        "1. train on ucf101, fold 1, split train, with labels, run 0123 -> "
        "2. transfer on a f0 + b f1, fold 2, split train, without labels"
    )
