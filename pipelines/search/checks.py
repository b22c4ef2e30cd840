"""What is checked before a search starts: its space on its base recipe, what networks cost, room for trials."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.baseline.config import BaselineConfig
from pipelines.baseline.job import load_rows
from pipelines.networks.lineage import lineage_of
from pipelines.networks.weights import check_network, costs_of, locate_weights
from pipelines.prepare.make import prepared_shards
from pipelines.runtime import pools
from pipelines.runtime.named_folder import NamedFolder
from pipelines.runtime.paths import input_path, output_path
from pipelines.search.config import SearchConfig
from pipelines.search.space import Point, check_points, grid_points
from pipelines.search.trial import SearchPlan, TrialConfig
from pipelines.settings.build import changed
from pipelines.settings.recipe import read_recipe
from pipelines.shards.index import load_index
from pipelines.train.config import ResolvedTrainConfig
from pipelines.train.stage import check_rows
from pipelines.training.run_folder import check_surroundings
from pipelines.transfer.config import PAIRS, TransferConfig
from t3d_core.errors import UserError


def make_plan(config: SearchConfig, folder: Path, *, tracking_uri: str) -> SearchPlan:
    """Read the recipes, try every value of the space on them, and find the shards.

    Transfers whose recipe has a probe are compared by it, because pairs are often judged by what features do not keep.

    Raises:
        UserError: settings that are wrong, one line each.
        UserError: shards or weights that do not exist, or weights that were trained on videos that trials test.
    """
    base = read_recipe(input_path(config.base))
    transfers = (config.transfer_before or {}).items()
    transfer_bases = {name: read_recipe(input_path(transfer.base)) for name, transfer in transfers}
    common: dict[str, Any] = {
        "storage": str(folder / "trials"),
        "tracking.uri": tracking_uri,
        "tracking.experiment": config.tracking.experiment,
    }
    plan = SearchPlan(config, base, transfer_bases, common, folder)
    of_base = check_space(plan)
    if config.metric is None and config.job == "transfer" and (metric := _telling_metric(plan)) != PAIRS:
        plan = replace(plan, config=changed(config, {"metric": metric}))
    storage = output_path(config.storage)
    folders = prepared_shards(of_base.data, storage=storage, before_work=partial(check_surroundings, of_base))
    index = load_index(folders, fold=of_base.data.fold, splits=["train"])
    _check_rows(plan, folders)
    common |= {"data.shards": [str(path) for path in folders], "data.prepare": None}
    return replace(plan, common=common, class_names=index.class_names if config.job == "train" else ())


def check_space(plan: SearchPlan) -> TrialConfig:
    """Try the base recipe, then every point of a grid or each value that can be drawn; return the base's settings.

    Raises:
        UserError: settings that are wrong, one line each.
        UserError: weights to start from that do not exist.
    """
    of_base = plan.trial_config({}, seed=0, name="base")
    if isinstance(of_base, ResolvedTrainConfig) and of_base.folds:
        raise UserError(f"folds {list(of_base.folds)}: a trial trains one network, so vary data.fold in space instead")
    problems: dict[str, str] = {}
    started_from: set[str] = set()
    for where, settings in check_points(plan.config.space):
        try:
            trial = plan.trial_config(settings, seed=0, name="trial")
            _check_crops(plan.config, trial)
            is_after_transfer = bool(plan.transfers_before(trial))
            if isinstance(trial, ResolvedTrainConfig) and trial.init_from is not None and not is_after_transfer:
                started_from.add(trial.init_from)
        except UserError as error:
            problems.setdefault(str(error), f"space, {where}: {error}")
    problems |= {problem: problem for problem in _problems_of_scheduler(plan.config, of_base)}
    if problems:
        raise UserError("\n".join(problems.values()))
    for weights in sorted(started_from):
        locate_weights(weights, tracking_uri=plan.common["tracking.uri"])
    return of_base


def _telling_metric(plan: SearchPlan) -> str:
    """The metric that decides between the transfers of a search.

    Raises:
        UserError: there is none that all of them log.
    """
    trials = [plan.trial_config(settings, seed=0, name="trial") for _, settings in check_points(plan.config.space)]
    metrics = sorted({trial.telling_metric() for trial in trials if isinstance(trial, TransferConfig)})
    if len(metrics) > 1:
        raise UserError(
            f"the transfers of this space are judged by {' and '.join(metrics)}, which not all of them log: give a "
            "--metric that they all log, such as that of a probe"
        )
    return metrics[0]


def _check_crops(config: SearchConfig, trial: TrialConfig) -> None:
    """Refuse a test of mirrored crops that evaluation would refuse only at the end of the trial."""
    is_sided = isinstance(trial, ResolvedTrainConfig) and bool(trial.augmentation.sides())
    if config.test is not None and config.test.num_crops == 10 and is_sided:
        raise UserError(
            "test.num_crops 10 also scores mirrored crops, and augmentation.flip gives mirrored clips the label of "
            "another class: give test.num_crops 1 or 3"
        )


def _check_rows(plan: SearchPlan, folders: list[Path]) -> None:
    """Refuse folds that there are not, and weights that were trained on what the trials test or validate.

    What other weights have seen is printed.

    Raises:
        UserError: as `load_index` and `check_rows`.
    """
    trials = [plan.trial_config(settings, seed=0, name="trial") for _, settings in check_points(plan.config.space)]
    for baseline in {each.data.model_dump_json(): each for each in trials if isinstance(each, BaselineConfig)}.values():
        load_rows(baseline, folders)
    distinct = {
        ("" if plan.transfers_before(trial) else trial.init_from or "", trial.data.model_dump_json()): trial
        for trial in trials
        if isinstance(trial, ResolvedTrainConfig)
    }
    for (weights, _), trial in sorted(distinct.items(), key=lambda each: each[0]):
        located = locate_weights(weights, tracking_uri=plan.common["tracking.uri"]) if weights else None
        lineage = lineage_of(located, None)
        train_index = load_index(folders, fold=trial.data.fold, splits=["train"])
        val_index = load_index(folders, fold=trial.data.fold, splits=["val"], may_be_empty=True)
        for warning in check_rows(trial, folders, train_index, val_index, lineage).warnings:
            print(f"WARNING: {warning}", flush=True)


def check_held_out(plan: SearchPlan, folder: NamedFolder) -> None:
    """Refuse to resume a search if new trials would validate on other videos than its earlier ones.

    Older versions held out by `seed`, and the recipes of their trials lack `data.holdout_seed`.

    Raises:
        UserError: an older version trained such a trial.
    """
    for record in sorted((folder.path / "trials").glob("*/run.json")):  # written after the recipe
        path = record.with_name("recipe.yaml")
        data = read_recipe(path)["data"]
        if "class_share" not in data or "holdout_seed" in data:  # a transfer, or a trial of this version
            continue
        shards = [Path(each) for each in plan.common["data.shards"]]
        if not len(load_index(shards, fold=data["fold"], splits=["val"], may_be_empty=True)):
            raise UserError(
                f"{folder.describe()} was begun by an older version of this project, whose trials held out by their "
                f"seed ({path}), but new ones hold out the same videos for every seed (data.holdout_seed): give "
                "another --name"
            )


def _problems_of_scheduler(config: SearchConfig, of_base: TrialConfig) -> list[str]:
    if isinstance(of_base, BaselineConfig):  # the config has checked that it has no scheduler
        return []
    scheduler, epochs, every = config.scheduler, of_base.epochs, of_base.validate_every_epochs
    if scheduler.kind in ("asha", "median") and scheduler.grace_epochs >= epochs:
        return [f"scheduler.grace_epochs {scheduler.grace_epochs} must be less than epochs {epochs}: lower it"]
    if scheduler.kind != "pbt":
        return []
    problems = []
    interval = scheduler.interval_epochs
    num_members = len(grid_points(config.space)) if config.sampler.kind == "grid" else config.sampler.num_points
    if num_members < 2:
        problems.append(f"scheduler pbt needs at least 2 points, and the space has {num_members}: widen it")
    if of_base.schedule.kind != "constant":
        problems.append(
            f"scheduler pbt builds the schedule itself from constant rates, but schedule.kind is "
            f"{of_base.schedule.kind}: add schedule.kind: constant to settings"
        )
    if interval >= epochs or interval % every:
        problems.append(
            f"scheduler.interval_epochs {interval} must be less than epochs {epochs} and a multiple of "
            f"validate_every_epochs {every}: change one of them"
        )
    return problems


class Rejection:
    """Why a point is not trained: its settings or sizes are impossible, or it costs more than the limits allow."""

    def __init__(self, plan: SearchPlan) -> None:
        """Build and count each network only once, when its point is first asked for."""
        self._plan = plan
        self._reasons: dict[str, str | None] = {}

    def __call__(self, point: Point) -> str | None:
        """The reason, or None if the point may be trained."""
        settings = json.dumps(dict(point.settings), sort_keys=True)
        if settings not in self._reasons:
            self._reasons[settings] = self._reason(point)
        return self._reasons[settings]

    def _reason(self, point: Point) -> str | None:
        limits = self._plan.config.limits
        try:
            config = self._plan.trial_config(point.settings, seed=0, name="trial")
            if isinstance(config, BaselineConfig):
                return None
            card = self._plan.card(config)
            check_network(card, batch_size=config.smallest_batch())
            costs = costs_of(card)
        except UserError as error:
            return " ".join(str(error).split())
        gmacs, parameters = costs["model/gmacs"], costs["model/parameters"]
        if limits.max_gmacs is not None and gmacs > limits.max_gmacs:
            return f"{gmacs:.3g} GMAC a clip, limits.max_gmacs {limits.max_gmacs:g}"
        if limits.min_gmacs is not None and gmacs < limits.min_gmacs:
            return f"{gmacs:.3g} GMAC a clip, limits.min_gmacs {limits.min_gmacs:g}"
        if limits.max_parameters is not None and parameters > limits.max_parameters:
            return f"{parameters:,.0f} parameters, limits.max_parameters {limits.max_parameters:,.0f}"
        return None


def check_some_point_is_left(config: SearchConfig, reject: Rejection) -> None:
    """Refuse a grid if all its points are rejected; drawn points are checked when they are drawn."""
    if config.sampler.kind != "grid":
        return
    points = grid_points(config.space)
    reasons = [f"{point.label}: {reject(point)}" for point in points if reject(point)]
    if len(reasons) == len(points):
        raise UserError(f"no point of the space can be trained ({'; '.join(reasons[:3])}): widen limits, or the space")


def room_for_trials(plan: SearchPlan) -> int:
    """How many trials fit now, each with a CPU for decoding; resources that other jobs hold do not count.

    Raises:
        UserError: not even one trial fits.
    """
    scaling = plan.trial_config({}, seed=0, name="trial").scaling
    fewest, each = max(1, scaling.fewest_workers()), scaling.resources_of_worker()
    pools.check_workers_fit(fewest, each)
    room = pools.room_for_groups(max(1, scaling.most_workers()), each)
    return min(max(1, room), plan.config.max_concurrent or room or 1)
