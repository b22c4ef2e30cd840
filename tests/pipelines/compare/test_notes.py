"""What a reader of the table is warned of."""

import pytest


def test_runs_that_are_not_the_papers_experiment_say_in_what(store):
    store.trained_and_tested(seed=0, value=0.5, dataset="weizmann6", coverage=0.5, epochs=3, **{"clip.crop_size": 64})
    notes = " ".join(store.compare(table=4).notes)
    assert notes.startswith("Not the paper's experiment: data weizmann6 (paper: UCF101, split 1); ")
    assert "epochs 3 (paper: 200)" in notes
    assert "clip.crop_size 64 (paper: 224)" in notes
    assert "50.0% of the listed videos (paper: all)" in notes
    assert "Fewer than three seeds" in notes


def test_the_axis_of_a_table_is_no_difference_from_it(store):
    for stride in (1, 16):
        store.trained_and_tested(seed=0, value=0.5, **{"clip.frame_stride": stride, "model.kind": "densenet3d_121"})
    comparison = store.compare(table=6)
    assert {row.label: row.paper.top1 for row in comparison.rows} == {"1": 65.2, "16": 60.5}
    assert not any("Not the paper's" in note for note in comparison.notes)


def test_what_the_paper_did_not_do_is_a_difference_whatever_it_is(store):
    store.trained_and_tested(seed=0, value=0.5, **{"label_smoothing": 0.1, "augmentation.mixup_alpha": 0.2})
    [note] = [note for note in store.compare(table=4).notes if note.startswith("Not the paper's")]
    assert "label_smoothing 0.1 (paper: 0.0)" in note
    assert "augmentation.mixup_alpha 0.2 (paper: 0.0)" in note


@pytest.mark.parametrize("kind", ["resnet3d_18", "t3d_121_depths_1", "densenet3d_121_wide"])
def test_another_network_of_the_family_is_not_the_papers(kind, store):
    store.trained_and_tested(seed=0, value=0.5, **{"model.kind": kind})
    notes = " ".join(store.compare(table=4).notes)
    assert f"network {kind} (paper: " in notes


def test_other_folds_than_the_papers_are_a_difference(store):
    store.trained_and_tested(seed=0, value=0.5, **{"data.fold": 2})
    assert any("folds 2 (paper: 1)" in note for note in store.compare(table=4).notes)


def test_tests_made_in_one_other_way_than_the_papers_say_so(store):
    store.test(store.train(seed=0), value=0.75, num_crops=10)
    assert any("tested with num_crops 10 (paper: 1)" in note for note in store.compare(table=4).notes)


def test_pooled_rows_say_in_what_their_runs_differ(store):
    for seed in range(2):
        for lr in (0.1, 0.2):
            store.train(seed=seed, value=lr, **{"optimizer.lr": lr})
    comparison = store.compare(group_by=("model.kind",))
    assert [(row.label, row.values, row.seeds) for row in comparison.rows] == [
        ("kind=t3d_121", (0.1, 0.2, 0.1, 0.2), ("0", "0", "1", "1"))
    ]
    assert "Runs of kind=t3d_121 differ in optimizer.lr." in comparison.notes


def test_members_of_a_population_are_called_as_they_began_and_the_table_says_so(store):
    for seed in range(3):
        store.train(seed=seed, tags={"point": "lr=0.1", "search": "pop"}, metrics={"setting/optimizer.lr": 0.2})
        store.train(seed=seed, tags={"point": "lr=0.1"})
    comparison = store.compare()
    assert [row.label for row in comparison.rows] == ["lr=0.1, population=pop", "lr=0.1, population=-"]
    assert any("settings with which their trials began" in note for note in comparison.notes)


def test_what_did_not_end_and_what_has_no_such_metric_is_said(store):
    store.train(seed=0)
    store.train(seed=1, status="FAILED", tags={"reason": "the loss is not finite"})
    store.trained_and_tested(seed=2, value=0.7)
    notes = store.compare().notes
    assert any("is FAILED and is not compared: the loss is not finite" in note for note in notes)
    assert any("1 of 2 runs have no video_top1" in note for note in notes)


def test_baselines_have_no_seed_and_the_table_says_so(store):
    for seed in range(3):
        store.trained_and_tested(seed=seed, value=0.5, tested_on="ucf101")
    store.baseline(value=0.8, seed=4)
    assert store.compare().notes == (
        "No network was trained for frozen: these rows follow from no seed, so each is compared with every seed of the "
        "others. They see a video as a whole, not in clips.",
    )
