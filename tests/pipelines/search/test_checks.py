"""A search is tried on its recipe before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.prepare.make import prepare
from pipelines.runtime.named_folder import NamedFolder
from pipelines.search.checks import check_held_out, check_space, make_plan
from pipelines.search.config import SearchConfig
from pipelines.search.job import run_search
from pipelines.search.trial import _NOT_THE_TRANSFER, SearchPlan
from pipelines.settings.build import changed, with_values
from pipelines.settings.recipe import read_recipe, to_yaml
from pipelines.settings.section import config_fingerprint
from pipelines.train.stage import build_stage
from pipelines.transfer.config import TransferConfig
from t3d_core.errors import UserError
from t3d_core.training.checkpoint import save_weights
from tests.pipelines.search.conftest import MODEL

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


@pytest.mark.parametrize(
    "recipe",
    [*sorted((RECIPES / "search").glob("*.yaml")), *sorted((RECIPES / "evidence").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_the_space_of_every_recipe_fits_its_base(recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(RECIPES.parents[1])
    monkeypatch.setattr("pipelines.search.checks.locate_weights", lambda where, tracking_uri: where)
    config = SearchConfig(**read_recipe(recipe))
    common = {"storage": str(tmp_path), "tracking.uri": "sqlite:///none.db"}
    transfers = {name: read_recipe(each.base) for name, each in (config.transfer_before or {}).items()}
    plan = SearchPlan(config, read_recipe(config.base), transfers, common, tmp_path)
    assert check_space(plan).seed == 0


def test_an_axis_that_asks_for_another_ones_value_is_tried_with_it(search_of):
    config = search_of(
        space={
            "net": {"choice": {"T3D": {}, "ResNet3D": {"model": {"kind": "resnet3d_18"}}}},
            "model.ttl": {"choice": [True, False], "when": {"net": "ResNet3D"}},
        },
        sampler={"kind": "random"},
    )
    common = {"tracking.uri": "sqlite:///none.db"}
    plan = SearchPlan(config, read_recipe(config.base), {}, common, Path("trials"))
    assert check_space(plan).model.kind == "t3d"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": {"init_from": {"grid": ["transfer/modern"]}}},
            r"init_from transfer/modern needs a transfer before the trial: describe 'modern' in transfer_before .*none",
        ),
        ({"space": {"model.growth_rat": {"grid": [8]}}}, r"space, point growth_rat=8: model.growth_rat: given 8, no"),
        ({"space": {"model.growth_rate": {"grid": ["wide"]}}}, r'model.growth_rate: given "wide", allowed: integer'),
        ({"space": {"epochs": {"grid": [1, 0]}}}, r"space, point epochs=0: epochs: given 0"),
        ({"space": {"net": {"grid": {"a": {"model.kin": "c3d"}}}}}, r"space, point a: model.kin"),
        (
            {"space": {"optimizer.lr": {"uniform": [-1, 1]}}, "sampler": {"kind": "random"}},
            r"optimizer.lr: given -1.0, allowed: number>0",
        ),
        (
            {
                "space": {"epochs": {"grid": [2]}},
                "settings": {"augmentation.flip": {"move_left": "move_right"}},
                "test": {"num_crops": 10},
            },
            r"test.num_crops 10 also scores mirrored crops, .*: give test.num_crops 1 or 3",
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.fold": 6}, r"data.fold 6 does not exist in .*: it has folds 1..5"),
        ({"data.num_sources": 5}, r"data.num_sources 5 is more than the 4 source videos that fold 1 has to train on"),
    ],
)
def test_folds_and_numbers_of_sources_that_there_are_not_are_refused_at_the_start(
    settings, message, search_of, shards_in_folds, tmp_path
):
    [(axis, wrong)] = settings.items()
    config = search_of(settings={"data.shards": [str(shards_in_folds)]}, space={axis: {"grid": [1, wrong]}})
    with pytest.raises(UserError, match=message):
        make_plan(config, tmp_path / "search", tracking_uri="sqlite:///none.db")


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


@pytest.mark.parametrize(
    ("changes", "probe", "expected"),
    [
        ({}, {"shards": ["labelled"]}, "probe/linear_top1"),
        ({}, {}, "check/pair_accuracy"),
        ({"metric": "check/pair_accuracy"}, {"shards": ["labelled"]}, "check/pair_accuracy"),
        ({"settings": {"probe.shards": ["labelled"]}}, {}, "probe/linear_top1"),
        (
            {"settings": {"objective": "frame_regression"}, "metric": None},
            {"shards": ["labelled"]},
            "val/loss",
        ),
        (
            {
                "settings": {"losses": {"pairs": 0, "contrast": 1}, "cache": {}},
                "space": {"optimizer.lr": {"grid": [0.1]}},
                "metric": None,
            },
            {},
            "check/key_rank",
        ),
    ],
)
def test_a_probe_decides_between_transfers_where_there_is_one(
    changes, probe, expected, search_of, synthetic_shards, tmp_path
):
    recipe = {"data": {"shards": [str(synthetic_shards)]}, "model": MODEL, "clip": {"num_frames": 16}, "probe": probe}
    (tmp_path / "transfer.yaml").write_text(yaml.safe_dump(recipe))
    config = search_of(
        **{"job": "transfer", "base": tmp_path / "transfer.yaml", "space": {"pairs": {"grid": ["all"]}}} | changes
    )
    plan = make_plan(config, tmp_path / "search", tracking_uri="sqlite:///none.db")
    assert plan.config.watched_metric() == expected


@pytest.fixture
def without_val(synthetic_shards, synthetic_config, tmp_path):  # which start Ray once for all tests
    dataset = synthetic_config.dataset.model_copy(update={"val_fraction": 0.0, "videos_per_class": 2})
    prepare(synthetic_config.model_copy(update={"dataset": dataset}), tmp_path / "shards of mine")
    return tmp_path / "shards of mine"


def test_weights_that_were_trained_on_what_a_trial_holds_out_are_refused_at_the_start(search_of, without_val, tmp_path):
    settings = {"data.shards": [str(without_val)], "data.holdout_fraction": 0.25}
    space = {"optimizer.lr": {"grid": [0.1]}}
    config = search_of(settings=settings, space=space)
    plan = make_plan(config, tmp_path / "search", tracking_uri="sqlite:///none.db")
    stage = build_stage(plan.trial_config({}, seed=0, name="trial"), [without_val], None)
    weights = tmp_path / "model.safetensors"
    save_weights(stage.build_task().net, weights, card=stage.card)
    settings["init_from"] = str(weights)
    make_plan(search_of(settings=settings, space=space), tmp_path / "search", tracking_uri="sqlite:///none.db")
    space = {"data.holdout_seed": {"grid": [0, 1]}}
    with pytest.raises(UserError, match=r"another held-out part \(data.holdout_seed 0, here 1\)"):
        make_plan(search_of(settings=settings, space=space), tmp_path / "search", tracking_uri="sqlite:///none.db")


def test_a_search_of_an_older_version_that_held_out_by_seed_is_not_resumed(
    search_of, synthetic_shards, without_val, tmp_path
):
    config = search_of(settings={"data.shards": [str(without_val)]}, space={"optimizer.lr": {"grid": [0.1]}})
    plan = make_plan(config, tmp_path / "search", tracking_uri="sqlite:///none.db")
    folder = NamedFolder(plan.folder, "search", "0")
    recipe = plan.trial_folder("1") / "recipe.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.with_name("run.json").touch()
    recipe.write_text(to_yaml(plan.trial_config({}, seed=0, name="1")))
    check_held_out(plan, folder)
    older = yaml.safe_load(recipe.read_text())
    del older["data"]["holdout_seed"]
    recipe.write_text(yaml.safe_dump(older))
    with pytest.raises(UserError, match=r"begun by an older version .* held out by their seed .*: give another --name"):
        check_held_out(plan, folder)
    check_held_out(replace(plan, common={**plan.common, "data.shards": [str(synthetic_shards)]}), folder)


TWIN = {"objective": "frame_regression", "cache": None, "optimizer.lr": 0.03}


def plan_with_twin(tmp_path, storage="a", **others):
    recipe = read_recipe(Path("jobs/recipes/transfer/quickstart.yaml"))
    before = {"twin": TWIN, "both": {"inflate_from": "transfer/twin"}} | others
    config = SearchConfig(
        base="jobs/recipes/train/quickstart.yaml",
        space={"epochs": {"grid": [1]}},
        transfer_before={
            name: {"base": "jobs/recipes/transfer/quickstart.yaml", "settings": settings}
            for name, settings in before.items()
        },
    )
    base = read_recipe(Path("jobs/recipes/train/quickstart.yaml"))
    common = {"storage": str(tmp_path / storage / "trials"), "tracking.uri": "sqlite:///x.db"}
    return SearchPlan(config, base, dict.fromkeys(before, recipe), common, tmp_path / storage)


def transfers_of(plan, seed=0, **settings):
    return plan.transfers_before(plan.trial_config(settings, seed=seed, name="trial"))


def test_a_transfer_can_start_from_the_inflated_twin_of_another(tmp_path):
    plan = plan_with_twin(tmp_path / "a")
    twin, both = transfers_of(plan, init_from="transfer/both", seed=3)
    assert (twin.objective, twin.inflate_from, twin.seed, both.seed) == ("frame_regression", None, 3, 3)
    assert both.inflate_from == str(plan.transfers_folder / twin.name / "twin.pt")
    assert plan.started_from(both) == {"init_from": str(plan.transfers_folder / both.name)}
    assert transfers_of(plan, inflate_from="transfer/twin", seed=3) == (twin,)
    assert plan.started_from(twin) == {"inflate_from": both.inflate_from}
    # The name follows from all that leads to the weights, but not from where they lie.
    assert transfers_of(plan_with_twin(tmp_path / "b"), init_from="transfer/both", seed=3)[1].name == both.name
    slower = plan_with_twin(tmp_path / "a", twin=TWIN | {"optimizer.lr": 0.01})
    assert transfers_of(slower, init_from="transfer/both", seed=3)[1].name != both.name


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"inflate_from": "transfer/both"}, "'both' has objective correspondence: give the other one"),
        ({}, {"init_from": "transfer/twin"}, "'twin' has objective frame_regression: give the other one"),
        ({"both": {"inflate_from": "transfer/none"}}, {"init_from": "transfer/both"}, "describe 'none' in transfer_b"),
        ({"both": {"inflate_from": "transfer/both"}}, {"init_from": "transfer/both"}, "has objective correspondence"),
    ],
)
def test_a_start_that_a_transfer_does_not_make_is_refused(tmp_path, changes, settings, message):
    with pytest.raises(UserError, match=message):
        transfers_of(plan_with_twin(tmp_path, **changes), **settings)


def test_searches_of_a_storage_share_transfers_and_other_settings_make_another(tmp_path):
    transfer_before = {"small": {"base": "jobs/recipes/transfer/quickstart.yaml"}}
    config = SearchConfig(
        base="jobs/recipes/train/quickstart.yaml", space={"epochs": {"grid": [1]}}, transfer_before=transfer_before
    )
    base, transfers = (read_recipe(Path(f"jobs/recipes/{kind}/quickstart.yaml")) for kind in ("train", "transfer"))

    def transfer_of(search, *, seed=0, **settings):
        common = {"storage": str(tmp_path / search / "trials"), "tracking.uri": f"sqlite:///{search}.db"}
        plan = SearchPlan(config, base, {"small": transfers}, common, tmp_path / search)
        trial = plan.trial_config({"init_from": "transfer/small", **settings}, seed=seed, name="trial")
        [found] = plan.transfers_before(trial)
        return found.storage / found.name

    assert transfer_of("one") == transfer_of("other", epochs=3, **{"data.fold": 2})
    assert transfer_of("one").parent == tmp_path / "transfers"
    others = {transfer_of("one", seed=1), transfer_of("one", **{"model.growth_rate": 4}), transfer_of("one")}
    assert len(others) == 3
    # What a run may change when it resumes makes no other transfer.
    cached = with_values(TransferConfig, transfers, {"cache.num_views": 2})
    resumed = changed(cached, {"cache.num_workers": 3, "checks.max_clips": 5, "scaling.num_workers": 0})
    assert config_fingerprint(cached, exclude=_NOT_THE_TRANSFER) == config_fingerprint(
        resumed, exclude=_NOT_THE_TRANSFER
    )
