"""Differences between rows, and how sure they are."""

import csv
import io

import numpy as np
import pytest

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.compare.videos import paired_differences
from t3d_core.evaluation.paired_test import holm_adjusted


def compared(store, **settings):
    """The comparison, and what is paired in it."""
    comparison = store.compare(**settings)
    return comparison, paired_differences(comparison.rows, comparison.reference, tracking_uri=store.uri)


def test_other_videos_are_not_compared_one_by_one(store):
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False])
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False, True], **{"model.kind": "c3d"})
    summary = run_compare(CompareConfig(tracking={"uri": store.uri}, output=store.folder / "report"))
    assert " - reference" not in summary
    assert "Not tested with the seeds and on the videos of" in summary
    assert "--reference compares with one of them instead" in summary


def test_videos_of_one_source_are_one_observation(store):
    """The first is right where the second is wrong, in ten videos of two sources: four ways to give signs."""
    sources = [f"scene{number // 5}" for number in range(10)]
    for kind, correct in (("t3d_121", [True] * 10), ("c3d", [False] * 10)):
        store.trained_and_tested(seed=0, value=0.5, correct=correct, sources=sources, **{"model.kind": kind})
    comparison, paired = compared(store)
    [difference] = paired.differences.values()
    assert comparison.reference.label == "kind=t3d_121"
    assert difference == pytest.approx((-1, 0.5, 0.5))
    assert any("signs of 2 source videos" in note for note in paired.notes)


def test_a_video_that_two_folds_test_is_two_tests_of_one_source(store):
    """As in HMDB51. The difference is that of the rows' means over folds, whose sizes differ."""
    right = {"t3d_121": {1: [True, True], 2: [True] * 4}, "c3d": {1: [False, True], 2: [True, False, False, True]}}
    for kind, of_folds in right.items():
        for fold, correct in of_folds.items():
            store.trained_and_tested(
                seed=0, value=float(np.mean(correct)), correct=correct, **{"model.kind": kind, "data.fold": fold}
            )
    comparison, paired = compared(store)
    mean_of = {row.label: row.mean for row in comparison.rows}
    [difference] = paired.differences.values()
    assert difference.difference == pytest.approx(mean_of["kind=c3d"] - mean_of["kind=t3d_121"]) == -0.5
    assert difference.p_value == pytest.approx(2 / 2**3)  # v0, v1 and v2 differ


def test_videos_of_one_name_in_two_data_sets_are_not_compared(store):
    for dataset in ("ucf101", "hmdb51"):
        trained = store.train(seed=0, dataset=dataset)
        store.test(trained, value=0.5, correct=[True, False], sources=[f"{dataset}-a", f"{dataset}-b"])
    assert compared(store)[1].differences == {}


def test_scores_without_sources_have_a_difference_and_no_p(store):
    for kind, sources in (("t3d_121", None), ("c3d", ()), ("resnet3d_18", None)):
        correct = [True, False, kind == "c3d", kind == "c3d"]
        store.trained_and_tested(seed=0, value=0.5, correct=correct, sources=sources, **{"model.kind": kind})
    summary = run_compare(CompareConfig(tracking={"uri": store.uri}, output=store.folder / "report"))
    assert "No p for kind=c3d: these scores, or those of kind=t3d_121, do not name the sources" in summary
    rows = {row["row"]: row for row in csv.DictReader(io.StringIO((store.folder / "report/table.csv").read_text()))}
    assert (rows["kind=c3d"]["- reference"], rows["kind=c3d"]["p (Holm)"]) == ("0.5", "")
    assert rows["kind=resnet3d_18"]["p (Holm)"] == "1.0"


def test_without_sources_of_the_reference_no_row_has_a_p(store):
    for kind, sources in (("t3d_121", ()), ("c3d", None)):
        store.trained_and_tested(seed=0, value=0.5, correct=[True, False], sources=sources, **{"model.kind": kind})
    [difference] = compared(store)[1].differences.values()
    assert difference == (0, None, None)


def test_p_values_are_adjusted_over_the_rows_of_the_table(store):
    rng = np.random.default_rng(0)
    for number, kind in enumerate(("t3d_121", "c3d", "resnet3d_18", "resnet3d_34")):
        correct = rng.random(40) < 0.2 + 0.2 * number
        store.trained_and_tested(seed=0, value=float(correct.mean()), correct=correct, **{"model.kind": kind})
    differences = list(compared(store)[1].differences.values())
    assert len(differences) == 3
    expected = holm_adjusted(np.array([each.p_value for each in differences]))
    assert [each.adjusted_p_value for each in differences] == pytest.approx(expected)
    assert any(each.adjusted_p_value > each.p_value for each in differences)


def test_a_reference_that_was_not_tested_gives_no_differences_and_a_note(store):
    store.train(seed=0)
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False], **{"model.kind": "c3d"})
    _, paired = compared(store, metric="val/clip_top1")
    assert paired.differences == {}
    assert paired.notes == ("There are no differences from kind=t3d_121, because it has no scores of videos.",)


@pytest.mark.parametrize("reference", [None, "frozen"])
def test_a_baseline_is_compared_with_every_seed_of_a_network(reference, store):
    """It is right in three videos of four; of the three seeds two are right in the fourth alone, and one in none."""
    for seed, correct in enumerate(([False] * 3 + [True], [False] * 3 + [True], [False] * 4)):
        store.trained_and_tested(seed=seed, value=float(np.mean(correct)), correct=correct, tested_on="ucf101")
    store.baseline(value=0.75, correct=[True] * 3 + [False])
    comparison, paired = compared(store, reference=reference)
    [difference] = paired.differences.values()
    sign = -1 if reference else 1
    mean_of = {row.label: row.mean for row in comparison.rows}
    assert difference.difference == pytest.approx(sign * (mean_of["frozen"] - mean_of["all runs"]))
    # Sources differ by 1, 1, 1 and -2/3: of the 16 ways to give signs 2 sum to 7/3 or more, with 3 - 2/3 and 3 + 2/3.
    assert difference.p_value == pytest.approx(4 / 16)
    assert any("p is by the signs of 4 source videos" in note for note in paired.notes)


def test_every_seed_of_a_baseline_is_one_and_the_same(store):
    store.trained_and_tested(seed=5, value=0.5, correct=[True, False], tested_on="ucf101")
    for seed in range(2):
        store.baseline(value=1.0, seed=seed, correct=[True, True])
    [difference] = compared(store)[1].differences.values()
    assert difference == pytest.approx((0.5, 1.0, 1.0))


def test_a_baseline_of_other_videos_is_not_compared(store):
    store.trained_and_tested(seed=0, value=0.5, correct=[True, False], tested_on="ucf101")
    store.baseline(value=1.0, correct=[True, True, True])
    assert compared(store)[1].differences == {}
