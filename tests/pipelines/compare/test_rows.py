"""Which runs are one row."""

import math

import pytest
from scipy import stats


def test_a_row_is_the_mean_and_spread_over_seeds_beside_the_papers_figure(store):
    for seed, value in enumerate((0.70, 0.74, 0.72)):
        store.trained_and_tested(seed=seed, value=value)
        store.trained_and_tested(seed=seed, value=value - 0.1, **{"model.kind": "densenet3d_121"})
    comparison = store.compare(table=4)
    t3d, densenet = comparison.rows
    assert (t3d.label, t3d.paper.top1, densenet.label, densenet.paper.top1) == ("T3D", 71.4, "DenseNet3D", 69.1)
    assert t3d.mean == pytest.approx(0.72)
    assert t3d.spread == pytest.approx(0.02)
    assert t3d.interval() == pytest.approx(stats.t.interval(0.95, 2, 0.72, 0.02 / 3**0.5))
    assert t3d.hours() == (pytest.approx(3 * 1.5 * 2), "CPU")
    assert comparison.notes == ()


def test_folds_of_a_seed_are_one_value(store):
    kinetics = store.train(seed=0, dataset="kinetics400")
    for fold, value in ((1, 0.9), (2, 0.8), (3, 0.7)):
        tags = {"started_from": kinetics}
        store.trained_and_tested(seed=0, value=value, tags=tags, init_from="runs/x", **{"data.fold": fold})
    [row] = [row for row in store.compare(table=10).rows if row.paper]
    assert (row.label, row.paper.top1) == ("T3D, ucf101", 90.3)
    assert row.values == (pytest.approx(0.8),)
    assert row.folds == ("1", "2", "3")


def test_runs_of_other_settings_are_rows_of_their_own_beside_the_paper(store):
    """The newer one, of Table 6, does not take the place of Table 4's."""
    for stride, value in ((2, 0.69), (16, 0.60)):
        for seed in range(3):
            settings = {"model.kind": "densenet3d_121", "clip.frame_stride": stride}
            store.trained_and_tested(seed=seed, value=value, **settings)
    comparison = store.compare(table=4)
    assert [(row.label, row.mean, len(row.values)) for row in comparison.rows] == [
        ("DenseNet3D, frame_stride=2", pytest.approx(0.69), 3),
        ("DenseNet3D, frame_stride=16", pytest.approx(0.60), 3),
    ]
    assert comparison.notes == (
        "DenseNet3D, frame_stride=16 differs from the paper: clip.frame_stride 16 (paper: 2).",
        "The paper's figures are only for orientation.",
    )


def test_seeds_of_other_folds_are_not_averaged(store):
    for seed, fold, value in ((0, 1, 0.9), (0, 2, 0.5), (1, 1, 0.9)):
        store.trained_and_tested(seed=seed, value=value, **{"data.fold": fold})
    rows = {row.label: row.values for row in store.compare(table=4).rows}
    assert rows == {"T3D, folds 1": (0.9,), "T3D, folds 1 2": (pytest.approx(0.7),)}


def test_points_of_one_name_in_two_searches_are_two_rows(store):
    for size in (48, 64):
        store.train(seed=0, value=size / 100, tags={"point": "T3D"}, **{"clip.crop_size": size})
    assert [row.label for row in store.compare().rows] == ["T3D, crop_size=64", "T3D, crop_size=48"]


def test_what_is_not_a_number_comes_last(store):
    for seed, value in enumerate((0.2, math.nan, 0.9)):
        store.train(seed=0, value=value, epochs=seed)
    assert [row.values for row in store.compare().rows][:2] == [(0.9,), (0.2,)]


def test_rows_get_distinct_labels_from_what_differs_or_from_what_is_asked(store):
    for seed in range(3):
        for lr in (0.1, 0.2):
            store.train(seed=seed, value=lr, **{"optimizer.lr": lr, "epochs": 200 + seed})
    rows = store.compare(group_by=("optimizer.lr",)).rows
    assert [(row.label, len(row.values)) for row in rows] == [("lr=0.2", 3), ("lr=0.1", 3)]
    assert len(store.compare().rows) == 6


def test_baselines_are_not_pooled_by_the_settings_of_networks(store):
    for kind in ("t3d_121", "c3d"):
        store.trained_and_tested(seed=0, value=0.5, tested_on="ucf101", **{"model.kind": kind})
    store.baseline(value=0.8, point="frozen")
    store.baseline(value=0.1, point="shape", kind="shape_and_length")
    for settings in ({"group_by": ("model.kind",)}, {"table": 4}):
        rows = store.compare(**settings).rows
        assert {row.label: row.values for row in rows if row.is_baseline} == {"frozen": (0.8,), "shape": (0.1,)}
        assert len(rows) == 4


def test_baselines_do_not_lengthen_the_names_of_networks(store):
    for seed in range(3):
        for kind in ("t3d_121", "c3d"):
            store.trained_and_tested(seed=seed, value=0.5, tested_on="ucf101", **{"model.kind": kind})
    store.baseline(value=0.8, point="frozen")
    comparison = store.compare()
    assert {row.label for row in comparison.rows} == {"frozen", "kind=t3d_121", "kind=c3d"}


def test_folds_of_a_baseline_are_one_value(store):
    for fold, value in ((1, 0.9), (2, 0.7)):
        store.baseline(value=value, **{"data.fold": fold})
    [row] = store.compare().rows
    assert (row.values, row.folds) == ((pytest.approx(0.8),), ("1", "2"))
