"""Searches from their recipe to MLflow; which trials come when is in test_search_trials."""

import csv
from pathlib import Path

import mlflow
import pytest
import yaml

from pipelines.search.checks import check_space
from pipelines.search.config import SearchConfig
from pipelines.search.job import run_search
from pipelines.search.ledger import Ledger
from pipelines.search.trial import SearchPlan
from pipelines.settings.recipe import read_recipe
from t3d_core.errors import UserError

MODEL = {"kind": "t3d", "growth_rate": 4, "block_config": [2, 2, 2, 2], "num_init_features": 24, "bn_size": 2}


@pytest.fixture
def search_of(tmp_path, monkeypatch):
    """Settings of a search whose base recipe lies in a file."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    recipe = {
        "data": {"shards": [str(tmp_path / "no_shards")]},
        "model": MODEL,
        "clip": {"num_frames": 16, "crop_size": 32},
        "global_batch_size": 8,
        "epochs": 2,
        "schedule": {"kind": "one_cycle"},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe))

    def make(**changes):
        common = {
            "base": tmp_path / "base.yaml",
            "seeds": (0,),
            "storage": tmp_path / "runs",
            "name": "trial",
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
        return SearchConfig(**common | changes)

    return make


def recorded(tmp_path):
    """Runs by stage, the oldest first."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("t3d").experiment_id
    runs = client.search_runs([experiment], order_by=["start_time ASC"])
    return {
        stage: [run for run in runs if run.data.tags["stage"] == stage] for stage in ("search", "train", "evaluate")
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
    assert {stage: len(of_stage) for stage, of_stage in again.items()} == {"search": 1, "train": 2, "evaluate": 2}
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    best = client.get_model_version_by_alias("best", "champion")
    assert best.run_id == max(runs["train"], key=lambda run: run.data.metrics["val/clip_top1"]).info.run_id


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
    assert "failed: 1, lr=1e+30: the" in summary


def test_what_a_budget_cuts_off_goes_on_with_a_larger_one(search_of, synthetic_shards, tmp_path):
    described = {
        "settings": {"data.shards": [str(synthetic_shards)], "epochs": 3},
        "space": {"optimizer.lr": {"grid": [0.05]}},
    }
    summary = run_search(search_of(**described, budget={"cpu_hours": 1e-9}))
    assert "cut off by the budget: 1 trials" in summary
    [cut_off] = recorded(tmp_path)["train"]
    assert (cut_off.info.status, cut_off.data.tags["reason"]) == ("KILLED", "cut off by the budget of the search")
    run_search(search_of(**described))
    [run] = recorded(tmp_path)["train"]
    assert (run.info.run_id, run.info.status) == (cut_off.info.run_id, "FINISHED")


def test_a_population_goes_on_from_its_best_with_other_rates(search_of, synthetic_shards, tmp_path, capfd):
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


RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


@pytest.mark.parametrize("recipe", sorted((RECIPES / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_space_of_every_recipe_fits_its_base(recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(RECIPES.parents[1])
    monkeypatch.setattr("pipelines.search.checks.locate_weights", lambda where, tracking_uri: where)
    config = SearchConfig(**read_recipe(recipe))
    before = config.transfer_before
    common = {"storage": str(tmp_path), "tracking.uri": "sqlite:///none.db"}
    transfer_base = None if before is None else read_recipe(before.base)
    plan = SearchPlan(config, read_recipe(config.base), transfer_base, common, tmp_path)
    assert check_space(plan).epochs >= 1


def test_an_axis_that_asks_for_another_ones_value_is_tried_with_it(search_of):
    config = search_of(
        space={
            "net": {"choice": {"T3D": {}, "ResNet3D": {"model": {"kind": "resnet3d_18"}}}},
            "model.ttl": {"choice": [True, False], "when": {"net": "ResNet3D"}},
        },
        sampler={"kind": "random"},
    )
    common = {"tracking.uri": "sqlite:///none.db"}
    plan = SearchPlan(config, read_recipe(config.base), None, common, Path("trials"))
    assert check_space(plan).model.kind == "t3d"


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


def test_a_search_goes_on_with_the_base_recipe_that_it_began_with_or_not_at_all(
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"init_from": {"grid": ["transfer"]}}}, "init_from transfer needs a transfer before the trial"),
        ({"space": {"model.growth_rat": {"grid": [8]}}}, r"space, point growth_rat=8: model.growth_rat: given 8, no"),
        ({"space": {"model.growth_rate": {"grid": ["wide"]}}}, r'model.growth_rate: given "wide", allowed: integer'),
        ({"space": {"epochs": {"grid": [1, 0]}}}, r"space, point epochs=0: epochs: given 0"),
        ({"space": {"net": {"grid": {"a": {"model.kin": "c3d"}}}}}, r"space, point a: model.kin"),
        (
            {"space": {"optimizer.lr": {"uniform": [-1, 1]}}, "sampler": {"kind": "random"}},
            r"optimizer.lr: given -1.0, allowed: number>0",
        ),
        ({"space": {"epochs": {"grid": [2]}}, "settings": {"epoch": 1}}, r"epoch: given 1, no such setting"),
        (
            {"space": {"optimizer.lr": {"grid": [1, 2]}}, "scheduler": {"kind": "asha", "grace_epochs": 2}},
            r"scheduler.grace_epochs 2 must be less than epochs 2",
        ),
        (
            {"space": {"optimizer.lr": {"grid": [1, 2]}}, "scheduler": {"kind": "pbt", "interval_epochs": 2}},
            r"(?s)schedule.kind is one_cycle: add.*interval_epochs 2 must be less than epochs 2",
        ),
    ],
)
def test_a_space_that_does_not_fit_the_recipe_is_refused_before_anything_starts(changes, message, search_of, tmp_path):
    with pytest.raises(UserError, match=message):
        run_search(search_of(**changes))
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_a_base_recipe_that_is_not_there_is_refused(search_of, tmp_path):
    with pytest.raises(UserError, match=r"recipe .*nowhere.yaml: No such file"):
        run_search(search_of(base=tmp_path / "nowhere.yaml", space={"epochs": {"grid": [1]}}))


def test_limits_that_no_point_meets_are_refused_with_what_the_points_cost(search_of, synthetic_shards):
    config = search_of(
        settings={"data.shards": [str(synthetic_shards)]},
        space={"model.growth_rate": {"grid": [4, 8]}},
        limits={"max_parameters": 1000},
    )
    with pytest.raises(
        ValueError, match=r"growth_rate=4: [\d,]+ parameters, limits.max_parameters 1,000; growth_rate=8"
    ):
        run_search(config)


def test_a_search_with_other_settings_is_no_continuation(search_of, synthetic_shards, tmp_path):
    (tmp_path / "runs" / "trial").mkdir(parents=True)
    (tmp_path / "runs" / "trial" / "search.json").write_text(
        '{"fingerprint": "0123456789abcdef", "mlflow_run_id": "x"}'
    )
    config = search_of(settings={"data.shards": [str(synthetic_shards)]}, space={"epochs": {"grid": [1]}})
    with pytest.raises(ValueError, match=r"search 'trial' .* other settings .*\(fingerprint 0123456789ab, now"):
        run_search(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {}}, "space has no axis"),
        ({"space": {"epochs": {"choice": [1]}}}, "space.epochs: choice is not for sampler grid"),
        ({"space": {"epochs": {"grid": [1]}}, "sampler": {"kind": "tpe"}}, "space.epochs: grid is not for sampler tpe"),
        ({"space": {"epochs": {"grid": [1]}}, "seeds": (1, 1)}, "must be some, each once"),
        ({"space": {"epochs": {"grid": [1]}}, "alias": "champion"}, "add --register NAME"),
        ({"space": {"epochs": {"grid": [1]}}, "settings": {"seed": 1}}, "seed is given by seeds"),
        ({"space": {"epochs": {"grid": [1]}}, "metric": "val/map"}, "metric 'val/map' is not looked at in a train run"),
        ({"space": {"seed": {"grid": [1]}}}, "space.seed: seed is not varied by a search"),
        ({"space": {"sets": {"grid": {"a": {"data.shards": ["b"]}}}}}, "space.sets: data.shards is not varied"),
        ({"space": {"wide, deep": {"grid": {"a": {}}}}}, "an axis cannot be called 'wide, deep'"),
        (
            {"space": {"net": {"grid": {"a": {}}}, "epochs": {"grid": [1], "when": {"nett": "a"}}}},
            "space.epochs.when: nett is no earlier axis; these are: net",
        ),
        (
            {"space": {"net": {"grid": {"a": {}}}, "epochs": {"grid": [1], "when": {"net": "b"}}}},
            "space.epochs.when: net is never 'b'; its values are: a",
        ),
        (
            {"space": {"net": {"grid": {"a": {"model.kind": "c3d"}}}}, "scheduler": {"kind": "pbt"}},
            "space.net: scheduler pbt changes settings while a network learns, which model.kind cannot",
        ),
        (
            {"space": {"optimizer.lr": {"choice": [1]}}, "sampler": {"kind": "tpe"}, "scheduler": {"kind": "pbt"}},
            "of which sampler tpe knows nothing",
        ),
    ],
)
def test_settings_of_a_search_that_contradict_each_other_are_refused(changes, message, search_of):
    with pytest.raises(ValueError, match=message):
        search_of(**changes)
