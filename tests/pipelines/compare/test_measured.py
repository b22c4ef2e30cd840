"""Which value a run has, and what it depends on."""

import pytest


def test_weights_are_followed_to_the_run_that_they_are_from(store):
    student = store._run({"stage": "transfer"}, {"inflate_from": None})
    half = store.train(seed=0, dataset="kinetics400", tags={"started_from": student}, init_from="runs/student")
    started = {"init_from": "runs/x", "optimizer.lr": 0.1}
    store.trained_and_tested(seed=0, value=0.6, tags={"started_from": student}, **started)
    store.trained_and_tested(seed=0, value=0.7, tags={"started_from": half}, **started)
    rows = {row.label: (row.mean, row.paper.top1) for row in store.compare(table=8).rows}
    assert rows == {"T3D, Transfer": (0.6, 81.3), "T3D, FT-Transfer": (0.7, 84.7)}


def test_of_two_runs_with_the_same_settings_and_seed_the_newer_one_counts(store):
    for value in (0.1, 0.9):
        store.trained_and_tested(seed=0, value=value)
    comparison = store.compare()
    assert [row.values for row in comparison.rows] == [(0.9,)]
    assert any("1 older runs" in note for note in comparison.notes)


def test_tests_made_in_another_way_are_not_mixed_in(store):
    for seed in range(3):
        trained = store.train(seed=seed)
        store.test(trained, value=0.7)
        if seed == 0:
            store.test(trained, value=0.99, **{"data.split": "train"})
            store.test(trained, value=0.75, num_crops=10)
    comparison = store.compare(table=4)
    assert comparison.rows[0].values == (0.7, 0.7, 0.7)
    [note] = comparison.notes
    assert note.startswith("Tests with split test, num_crops 1 are compared, not those with split test, num_crops 10; ")


def test_weights_of_unlike_transfers_are_unlike(store):
    for epochs, value in ((10, 0.5), (20, 0.6)):
        for seed in range(2):
            student = store._run({"stage": "transfer"}, {"epochs": epochs, "seed": seed})
            tags = {"started_from": student}
            store.trained_and_tested(seed=seed, value=value, tags=tags, init_from=f"runs/student-{epochs}-{seed}")
    rows = store.compare(table=8).rows
    assert [row.values for row in rows] == [(0.6, 0.6), (0.5, 0.5)]
    assert all(row.label.startswith("T3D, Transfer, init=transfer (") for row in rows)


def test_runs_of_before_a_setting_was_added_share_a_row_with_those_that_have_its_default(store):
    store.trained_and_tested(seed=0, value=0.6)
    now = {"optimizer.kind": "sgd", "optimizer.layer_decay": 1.0, "freeze_backbone_epochs": 0}
    store.trained_and_tested(seed=1, value=0.8, **now)
    store.trained_and_tested(seed=2, value=0.9, **now | {"optimizer.layer_decay": 0.75})
    assert sorted(row.values for row in store.compare().rows) == [(0.6, 0.8), (0.9,)]


def test_runs_that_held_out_other_videos_are_not_one_row(store):
    for seed in range(2):
        store.train(seed=seed)  # as older versions recorded them: what is held out follows the seed
        store.train(seed=seed, tags={"held_out": "0"})
    rows = {row.label: row.seeds for row in store.compare().rows}
    assert rows == {"holdout_seed=0": ("0", "1"), "holdout_seed=as seed": ("0", "1")}


def test_runs_on_data_with_a_validation_split_are_one_row_whatever_holds_out(store):
    store.train(seed=0)
    store.train(seed=1, tags={"held_out": "nothing"})
    [row] = store.compare().rows
    assert row.seeds == ("0", "1")


def test_runs_whose_batch_norms_saw_other_numbers_of_clips_are_not_one_row(store):
    for seed, num_workers in enumerate(("1", "8", "[1, 8]")):
        store.train(seed=seed, **{"scaling.num_workers": num_workers})
    rows = {row.label: row.seeds for row in store.compare().rows}
    assert rows == {"micro_batch_size=64": ("0",), "micro_batch_size=8": ("1", "2")}


def test_runs_of_one_micro_batch_are_one_row_on_any_number_of_workers(store):
    for seed, num_workers in enumerate(("1", "2", "8")):
        store.train(seed=seed, micro_batch_size=8, **{"scaling.num_workers": num_workers})
    assert [row.seeds for row in store.compare().rows] == [("0", "1", "2")]


def test_batch_norms_over_all_workers_see_the_clips_of_all(store):
    for seed, num_workers in enumerate(("1", "8")):
        settings = {"micro_batch_size": 8, "compute.sync_batch_norm": True, "scaling.num_workers": num_workers}
        store.train(seed=seed, **settings)
    assert {row.label for row in store.compare().rows} == {"batch_norm_clips=8", "batch_norm_clips=64"}


def test_baselines_stand_in_the_table_of_networks_whose_tests_are_of_their_split_and_data(store):
    for seed in range(3):
        trained = store.train(seed=seed)
        store.test(trained, value=0.7, dataset="ucf101", num_clips=3)
    store.baseline(value=0.8, point="frozen + linear")
    store.baseline(value=0.1, point="shape and length", kind="shape_and_length")
    store.baseline(value=0.9, point="on other videos", **{"data.split": "val"})
    comparison = store.compare()
    assert [(row.label, row.mean) for row in comparison.rows] == [
        ("frozen + linear", 0.8),
        ("all runs", pytest.approx(0.7)),
        ("shape and length", 0.1),
    ]
    assert "Tests with split test are compared, not those with split val." in comparison.notes
    assert any(note.startswith("1 of 6 runs have no video_top1") for note in comparison.notes)


def test_baselines_alone_are_a_table(store):
    store.baseline(value=0.8, point="frozen")
    store.baseline(value=0.1, point="shape", kind="shape_and_length")
    assert [(row.label, row.values) for row in store.compare().rows] == [("frozen", (0.8,)), ("shape", (0.1,))]


def test_baselines_are_no_students(store):
    store.baseline(value=0.8)
    store.transfer(metrics={"check/pair_accuracy": 0.6})
    assert [row.mean for row in store.compare(stage="transfer").rows] == [0.6]
