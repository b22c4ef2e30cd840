"""Searches from their recipe to MLflow; which trials come when is in test_trial_source."""

import csv
import re

import mlflow
import pytest
import yaml

from pipelines.compare.config import CompareConfig
from pipelines.compare.job import run_compare
from pipelines.search.job import run_search
from pipelines.search.ledger import Ledger
from t3d_core.errors import UserError

MODEL = {"kind": "t3d", "growth_rate": 4, "block_config": [2, 2, 2, 2], "num_init_features": 24, "bn_size": 2}

pytestmark = pytest.mark.usefixtures("tracking_uri")


def recorded(tmp_path):
    """Runs by stage, the oldest first."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("t3d").experiment_id
    runs = client.search_runs([experiment], order_by=["start_time ASC"])
    return {
        stage: [run for run in runs if run.data.tags["stage"] == stage]
        for stage in ("search", "transfer", "train", "evaluate")
    }


def test_every_point_is_a_run_inside_the_search_and_nothing_is_done_twice(search_of, synthetic_shards, tmp_path, capfd):
    config = search_of(
        settings={"data.shards": [str(synthetic_shards)], "epochs": 1},
        space={
            "architecture": {"grid": {"T3D": {}, "DenseNet3D, narrow": {"model": {**MODEL, "kind": "densenet3d"}}}},
            "optimizer.lr": {"grid": [0.05], "when": {"architecture": "T3D"}},
        },
        test={"split": "test"},
        register="best",
        alias="champion",
    )
    summary = run_search(config)
    shown = capfd.readouterr().out
    assert "trial 1: T3D, lr=0.05, seed 0: val/clip_top1" in shown
    assert "epoch 1/1" not in shown
    runs = recorded(tmp_path)
    [search] = runs["search"]
    assert [run.data.tags["point"] for run in runs["train"]] == ["T3D, lr=0.05", "DenseNet3D, narrow"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs["train"]} == {search.info.run_id}
    tested = {run.data.tags["trained_by"]: run for run in runs["evaluate"]}
    assert set(tested) == {run.info.run_id for run in runs["train"]}
    assert {run.info.status for of_stage in runs.values() for run in of_stage} == {"FINISHED"}
    with (tmp_path / "runs" / "trial" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["ended", "ended"]
    for row, run in zip(rows, runs["train"], strict=True):
        assert float(row["test/video_top1"]) == tested[run.info.run_id].data.metrics["video_top1"]
        assert float(row["val/clip_top1"]) == run.data.metrics["val/clip_top1"]
        assert run.data.metrics["model/gmacs"] == float(row["model/gmacs"])
        assert run.data.metrics["model/parameters"] == float(row["model/parameters"])
    assert run_search(config).splitlines()[:3] == summary.splitlines()[:3]
    again = recorded(tmp_path)
    assert {stage: len(of_stage) for stage, of_stage in again.items()} == {
        "search": 1,
        "transfer": 0,
        "train": 2,
        "evaluate": 2,
    }
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    best = client.get_model_version_by_alias("best", "champion")
    assert best.run_id == max(runs["train"], key=lambda run: run.data.metrics["val/clip_top1"]).info.run_id


def test_folds_are_pooled_and_trials_that_agree_in_their_transfer_share_one(
    search_of, synthetic_shards, shards_in_folds, tmp_path, capfd
):
    transfer = {
        "data": {"shards": [str(synthetic_shards)], "holdout_fraction": 0.3},
        "teacher": {"kind": "efficientnet_lite0", "num_frames": 2, "crop_size": 64},
        "cache": {"num_views": 1},  # on two CPUs there is none for a process of the teacher beside the trial's
        "global_batch_size": 8,
        "epochs": 1,
        "schedule": {"kind": "one_cycle"},
        "checks": {"max_clips": 0},
    }
    (tmp_path / "transfer.yaml").write_text(yaml.safe_dump(transfer))
    config = search_of(
        settings={"data.shards": [str(shards_in_folds)], "epochs": 1, "data.num_sources": 2},
        space={
            "weights": {"grid": {"scratch": {}, "student": {"init_from": "transfer/small", "replace_head": True}}},
            "data.fold": {"grid": [1, 2]},
        },
        transfer_before={"small": {"base": tmp_path / "transfer.yaml", "settings": {"optimizer.lr": 0.02}}},
        test={"split": "test"},
    )
    summary = run_search(config)
    shown = capfd.readouterr().out
    assert re.search(r"^small-[0-9a-f]{8}-seed0: ended, \d+ s$", shown, re.MULTILINE)
    assert re.search(r"^trial \d: student, fold=2, seed 0: val/clip_top1", shown, re.MULTILINE)
    assert sorted(line.split()[0] for line in summary.splitlines()[1:3]) == ["scratch", "student"]
    [transferred] = recorded(tmp_path)["transfer"]
    trained = recorded(tmp_path)["train"]
    assert [run.data.tags.get("started_from") for run in trained].count(transferred.info.run_id) == 2
    assert {run.data.params["data.fold"] for run in trained} == {"1", "2"}
    compared = run_compare(CompareConfig(runs=("trial",), tracking=config.tracking, output=tmp_path / "report"))
    assert "padded" in compared
    with (tmp_path / "report" / "table.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"scratch", "student"}
    assert {(row["n"], len(row["run_ids"].split())) for row in rows.values()} == {("1", 2)}
    assert rows["student"]["p unadjusted"], "the same videos in the same folds"


def test_trials_that_are_stopped_or_fail_say_why_and_none_is_left_running(search_of, synthetic_shards, tmp_path):
    config = search_of(
        settings={"data.shards": [str(synthetic_shards)], "epochs": 2},
        space={"optimizer.lr": {"grid": [1e-9, 1.0, 1e30]}},
        scheduler={"kind": "asha", "reduction_factor": 2},
        metric="val/loss",
    )
    summary = run_search(config)
    runs = {float(run.data.params["optimizer.lr"]): run for run in recorded(tmp_path)["train"]}
    assert {lr: run.info.status for lr, run in runs.items()} == {1e-9: "FINISHED", 1.0: "KILLED", 1e30: "FAILED"}
    assert runs[1.0].data.tags["reason"] == "stopped by asha at epoch 1"
    stopped = Ledger(tmp_path / "runs" / "trial" / "trials.jsonl").records["p001-seed0"]
    assert (stopped.state, stopped.metrics["model/gmacs"]) == ("stopped", runs[1.0].data.metrics["model/gmacs"])
    assert "is not finite at step" in runs[1e30].data.tags["reason"]
    assert re.search(r"failed: +1, lr=1e\+30: the", summary)


def test_what_a_budget_interrupts_is_resumed_with_a_larger_one(search_of, synthetic_shards, tmp_path):
    described = {
        "settings": {"data.shards": [str(synthetic_shards)], "epochs": 3},
        "space": {"optimizer.lr": {"grid": [0.05]}},
    }
    summary = run_search(search_of(**described, budget={"cpu_hours": 1e-9}))
    assert "1 trials interrupted by the budget" in summary
    [interrupted] = recorded(tmp_path)["train"]
    assert (interrupted.info.status, interrupted.data.tags["reason"]) == (
        "KILLED",
        "interrupted by the budget of the search",
    )
    run_search(search_of(**described))
    [run] = recorded(tmp_path)["train"]
    assert (run.info.run_id, run.info.status) == (interrupted.info.run_id, "FINISHED")


@pytest.mark.slow  # who copies from whom is tested in test_trial_source.py
def test_a_population_continues_from_its_best_with_other_rates(search_of, synthetic_shards, tmp_path, capfd):
    """At a rate of 1 the network is ruined; then it has the other one's weights, and all but stands still as that does.

    Batch norms alone move at a rate of 1e-9, and on the same clips.
    """
    config = search_of(
        settings={"data.shards": [str(synthetic_shards)], "epochs": 2, "schedule": {"kind": "constant"}},
        space={"optimizer.lr": {"grid": [1.0, 1e-9]}},
        sampler={"seed": 1},  # which draws 1e-9 again
        scheduler={"kind": "pbt", "share_drawn": 0.0},
        metric="val/loss",
    )
    run_search(config)
    assert "epoch 1, seed 0: lr=1 takes over from lr=1e-09 (val/loss" in capfd.readouterr().out
    records = Ledger(tmp_path / "runs" / "trial" / "trials.jsonl").records
    assert [list(record.donors) for record in records.values()] == [["p001-seed0@1"], []]
    runs = recorded(tmp_path)["train"]
    assert len(runs) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("reason" in run.data.tags for run in runs)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")

    def curves(metric):
        return [{p.step: p.value for p in client.get_metric_history(run.info.run_id, metric)} for run in runs]

    ruined, still = curves("val/loss")
    _, middle, end = sorted(ruined)
    assert ruined[middle] > still[middle] + 0.1
    assert ruined[end] == pytest.approx(still[end], abs=1e-4)
    assert curves("setting/optimizer.lr")[0] == {0: 1.0, middle: 1e-9}
    assert curves("lr")[0][end] == 1e-9


def test_a_search_that_is_interrupted_leaves_no_run_running(search_of, synthetic_shards, tmp_path, monkeypatch):
    config = search_of(
        settings={"data.shards": [str(synthetic_shards)], "epochs": 30}, space={"optimizer.lr": {"grid": [0.01]}}
    )

    def interrupt(self, trial_id, result):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.search.stopping.Reports.__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_search(config)
    runs = recorded(tmp_path)
    assert {run.info.status for run in (*runs["search"], *runs["train"])} == {"KILLED"}
    assert runs["train"][0].data.tags["reason"] == "the search was interrupted"


def test_a_search_is_resumed_with_the_base_recipe_that_it_began_with_or_not_at_all(
    search_of, synthetic_shards, tmp_path, monkeypatch
):
    config = search_of(settings={"data.shards": [str(synthetic_shards)]}, space={"optimizer.lr": {"grid": [0.01]}})
    monkeypatch.setattr("pipelines.search.job._Search.run_trials", lambda self: None)
    run_search(config)
    run_search(config)
    recipe = yaml.safe_load((tmp_path / "base.yaml").read_text())
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe | {"label_smoothing": 0.1}))
    with pytest.raises(ValueError, match="begun with other settings or another base recipe"):
        run_search(config)


def test_a_base_recipe_that_is_not_there_is_refused(search_of, tmp_path):
    with pytest.raises(UserError, match=r"recipe .*nowhere.yaml: No such file"):
        run_search(search_of(base=tmp_path / "nowhere.yaml", space={"epochs": {"grid": [1]}}))


def test_a_search_with_other_settings_is_no_continuation(search_of, synthetic_shards, tmp_path):
    (tmp_path / "runs" / "trial").mkdir(parents=True)
    (tmp_path / "runs" / "trial" / "search.json").write_text(
        '{"fingerprint": "0123456789abcdef", "mlflow_run_id": "x"}'
    )
    config = search_of(settings={"data.shards": [str(synthetic_shards)]}, space={"epochs": {"grid": [1]}})
    with pytest.raises(ValueError, match=r"search 'trial' .* other settings .*\(fingerprint 0123456789ab, now"):
        run_search(config)


def test_baselines_are_trials_that_stand_in_the_table_of_the_networks(search_of, synthetic_shards, tmp_path, capfd):
    tested = {"data.shards": [str(synthetic_shards)]}
    search_of_networks = search_of(
        name="networks",
        settings={**tested, "epochs": 1},
        space={"optimizer.lr": {"grid": [0.05]}},
        seeds=(1,),
        test={"split": "test", "num_clips": 1},
    )
    run_search(search_of_networks)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"data": {"shards": ["none"]}, "kind": "shape_and_length"}))
    config = search_of(
        job="baseline",
        settings=tested,
        space={"baseline": {"grid": {"shape and length": {}, "with half": {"data.class_share": 0.5}}}},
    )
    summary = run_search(config)
    shown = capfd.readouterr().out
    assert "shape and length, seed 0: test/video_top1 0." in shown
    assert re.search(r"shape and length +1 +0\.\d+", summary)
    compare = CompareConfig(
        runs=("networks", "trial"), tracking=config.tracking, output=tmp_path / "report", reference="lr=0.05"
    )
    run_compare(compare)
    with (tmp_path / "report" / "table.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert {label: row["seeds"] for label, row in rows.items()} == {
        "lr=0.05": "1",
        "shape and length": "0",
        "with half": "0",
    }
    assert all((row["- reference"] == "") == (label == "lr=0.05") for label, row in rows.items())
    assert len({row["videos"] for row in rows.values()}) == 1
