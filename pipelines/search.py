"""A base recipe and a space over its settings become trials on Ray Tune, all of them in MLflow (paper Tables 2 to 6).

STORAGE/NAME/search.json      what the search is: settings, MLflow run
STORAGE/NAME/trials.jsonl     what became of every trial
STORAGE/NAME/trials/TRIAL/    every trial's run
STORAGE/NAME/trials.csv       the result: a line a trial

A search that was killed goes on when it is started again: trials that ended are kept, those under way go on from their
checkpoints, and all keep their MLflow runs. Ray Tune runs, schedules and stops trials; what has been is in files of
ours, for Tune's own snapshots lag behind.
"""

import csv
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import Stopper

from pipelines import session, tracking
from pipelines.checkpoints import CheckpointFolder
from pipelines.configs import TrainConfig, TransferConfig
from pipelines.prepare import prepared_shards
from pipelines.recipe import JobError, config_fingerprint, flatten, read_recipe, to_yaml
from pipelines.search_configs import SearchConfig
from pipelines.search_ledger import Ledger, TrialRecord
from pipelines.search_population import Heir
from pipelines.search_space import Point, check_points, grid_points
from pipelines.search_summary import describe_search, describe_trial
from pipelines.search_trial import TRANSFER, SearchPlan, run_trial
from pipelines.search_trials import TrialSource
from pipelines.shard_index import load_index
from pipelines.shards import whole_file
from pipelines.training_run import alone_in, run_id_of
from pipelines.weights import check_network, costs_of

# What may change when a search goes on: where it lies, what it may cost and how much runs at once.
_RESUMABLE = (
    *("storage", "name", "budget", "max_concurrent", "max_failures", "tracking", "register", "alias"),
    *("sampler.num_points",),
)


def run_search(config: SearchConfig) -> str:
    """Train every point with every seed, as `config` says; give the closing summary.

    Raises:
        JobError: settings of the base recipe or of the space that cannot be, before anything starts.
        ValueError: points, shards or resources that cannot work, before anything starts.
    """
    base = session.base_folder()
    folder = base / config.storage / (config.name or session.new_name("search"))
    tracking_uri = tracking.resolve_tracking_uri(config.tracking.uri, base=base)
    plan = _plan(config, folder, tracking_uri=tracking_uri)
    reject = _Rejection(plan)
    _check_some_point_is_left(config, reject)
    session.connect()
    max_concurrent = _max_concurrent(plan)
    with alone_in(folder):
        known = _read_search_file(folder, config)
        with tracking.start_run(
            tracking_uri=tracking_uri,
            experiment=config.tracking.experiment,
            run_name=folder.name,
            run_id=known["mlflow_run_id"] if known else None,
            tags={"stage": "search", **tracking.commit_tag()},
        ) as run:
            if known is None:
                _write_search_files(folder, config, run)
            ledger = Ledger(folder / "trials.jsonl")
            search = _Search(plan, ledger, run, reject=reject, max_concurrent=max_concurrent)
            search.run_trials()
            return search.close()


def _plan(config: SearchConfig, folder: Path, *, tracking_uri: str) -> SearchPlan:
    """Read the recipes, try every value of the space on them, and find the shards.

    Raises:
        JobError: one line a wrong setting.
    """
    base = read_recipe(session.input_path(config.base))
    before = config.transfer_before
    transfer_base = None if before is None else read_recipe(session.input_path(before.base))
    common: dict[str, Any] = {
        "storage": str(folder / "trials"),
        "tracking.uri": tracking_uri,
        "tracking.experiment": config.tracking.experiment,
    }
    plan = SearchPlan(config, base, transfer_base, common, folder)
    of_base = _checked(plan)
    folders = prepared_shards(of_base.data, storage=session.base_folder() / config.storage)
    index = load_index(folders, fold=of_base.data.fold, splits=["train"])
    common |= {"data.shards": [str(path) for path in folders], "data.prepare": None}
    return replace(plan, common=common, class_names=index.class_names if config.job == "train" else ())


def _checked(plan: SearchPlan) -> TrainConfig | TransferConfig:
    """Try the base recipe, then each value of each axis on it, and of a grid every point; give the base's settings."""
    of_base = plan.trial_config({}, seed=0, name="base")
    if isinstance(of_base, TrainConfig) and of_base.folds:
        raise JobError(f"folds {list(of_base.folds)}: a trial trains one network: vary data.fold in space instead")
    if of_base.model is None or of_base.clip is None:
        raise JobError("model and clip are left to weights: write them into the base recipe, or into settings")
    problems: dict[str, str] = {}
    tried = list(check_points(plan.config.space))
    if plan.config.sampler.kind == "grid":
        tried += [(point.label, point.settings) for point in grid_points(plan.config.space)]
    for where, settings in tried:
        try:
            trial = plan.trial_config(settings, seed=0, name="trial")
            if isinstance(trial, TrainConfig) and trial.init_from == TRANSFER:
                plan.transfer_config(trial)
        except JobError as error:
            problems.setdefault(str(error), f"space.{where}: {error}")
    if problems:
        raise JobError("\n".join(problems.values()))
    if plan.config.scheduler.kind == "pbt":
        _check_population(plan.config, of_base)
    return of_base


def _check_population(config: SearchConfig, of_base: TrainConfig | TransferConfig) -> None:
    """Refuse a population that cannot be one."""
    interval, every = config.scheduler.interval_epochs, of_base.validate_every_epochs
    num_members = len(grid_points(config.space)) if config.sampler.kind == "grid" else config.sampler.num_points
    problems = []
    if num_members < 2:
        problems.append(f"scheduler pbt needs 2 points at least, the space has {num_members}: widen it")
    if of_base.schedule.kind != "constant":
        problems.append(
            f"scheduler pbt makes the schedule itself, out of constants, but schedule.kind is {of_base.schedule.kind}: "
            "add schedule.kind: constant to settings"
        )
    if interval >= of_base.epochs or interval % every:
        problems.append(
            f"scheduler.interval_epochs {interval} must be less than epochs {of_base.epochs}, and a multiple of "
            f"validate_every_epochs {every}: change one of them"
        )
    if problems:
        raise JobError("\n".join(problems))


class _Rejection:
    """Says why a point is not to be trained: settings or sizes that cannot be, or costs beyond the limits."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._reasons: dict[str, str | None] = {}

    def __call__(self, point: Point) -> str | None:
        """The reason; none: it may be trained."""
        settings = json.dumps(dict(point.settings), sort_keys=True)
        if settings not in self._reasons:  # a network is built and counted for it
            self._reasons[settings] = self._reason(point)
        return self._reasons[settings]

    def _reason(self, point: Point) -> str | None:
        limits = self._plan.config.limits
        try:
            config = self._plan.trial_config(point.settings, seed=0, name="trial")
            card = self._plan.card(config)
            check_network(card, batch_size=config.smallest_batch())
            costs = costs_of(card)
        except (JobError, ValueError) as error:
            return " ".join(str(error).split())
        gmacs, parameters = costs["model/gmacs"], costs["model/parameters"]
        if limits.max_gmacs is not None and gmacs > limits.max_gmacs:
            return f"{gmacs:.3g} GMAC a clip, limits.max_gmacs {limits.max_gmacs:g}"
        if limits.min_gmacs is not None and gmacs < limits.min_gmacs:
            return f"{gmacs:.3g} GMAC a clip, limits.min_gmacs {limits.min_gmacs:g}"
        if limits.max_parameters is not None and parameters > limits.max_parameters:
            return f"{parameters:,.0f} parameters, limits.max_parameters {limits.max_parameters:,.0f}"
        return None


def _check_some_point_is_left(config: SearchConfig, reject: _Rejection) -> None:
    """Refuse a grid of which every point is rejected; what is drawn is seen when it is drawn."""
    if config.sampler.kind != "grid":
        return
    points = grid_points(config.space)
    reasons = [f"{point.label}: {reject(point)}" for point in points if reject(point)]
    if len(reasons) == len(points):
        raise ValueError(f"no point of the space can be trained ({'; '.join(reasons[:3])}): widen limits, or the space")


def _max_concurrent(plan: SearchPlan) -> int:
    """Trials for which there is room, each with a CPU for decoding.

    Raises:
        ValueError: there is not even room for one.
    """
    config = plan.trial_config({}, seed=0, name="trial")
    workers, each = max(1, config.scaling.fewest_workers()), config.scaling.resources_of_worker()
    session.check_workers_fit(workers, each)
    needed = {name: workers * amount + (name == "CPU") for name, amount in each.items()}
    cluster = ray.cluster_resources()
    room = min(int(cluster.get(name, 0.0) / amount) for name, amount in needed.items() if amount)
    return min(max(1, room), plan.config.max_concurrent or room)


def _read_search_file(folder: Path, config: SearchConfig) -> dict[str, Any] | None:
    file = folder / "search.json"
    if not file.is_file():
        return None
    known = json.loads(file.read_text())
    fingerprint = config_fingerprint(config, exclude=_RESUMABLE)
    if known["fingerprint"] != fingerprint:
        raise ValueError(
            f"search {folder.name!r} in {folder.parent} was begun with other settings (fingerprint "
            f"{known['fingerprint'][:12]}, now {fingerprint[:12]}; see {folder / 'recipe.yaml'}): give another --name"
        )
    return known


def _write_search_files(folder: Path, config: SearchConfig, run: tracking.Run) -> None:
    run.log_params(flatten(config))
    run.log_text(to_yaml(config), "recipe.yaml")
    (folder / "recipe.yaml").write_text(to_yaml(config))
    known = {"fingerprint": config_fingerprint(config, exclude=_RESUMABLE), "mlflow_run_id": run.run_id}
    with whole_file(folder / "search.json") as partial:
        partial.write_text(json.dumps(known, indent=1))


class _Search:
    """The trials of one search, on Ray Tune."""

    def __init__(
        self, plan: SearchPlan, ledger: Ledger, run: tracking.Run, *, reject: _Rejection, max_concurrent: int
    ) -> None:
        tags = {tracking.PARENT: run.run_id, "search": plan.folder.name}
        self._plan = replace(plan, tags=tags)
        self._config, self._ledger, self._run = plan.config, ledger, run
        self._reject, self._max_concurrent = reject, max_concurrent
        self._budget = _Budget(plan.config, ledger, self._resources())

    def run_trials(self) -> None:
        """Run what is left to run, within the budget."""
        source = TrialSource(
            self._config,
            self._ledger,
            max_concurrent=self._max_concurrent,
            reject=self._reject,
            ended=self._ended,
            take_over=self._take_over,
        )
        tune_folder = self._plan.folder / "tune"
        shutil.rmtree(tune_folder, ignore_errors=True)  # of an earlier start: what counts is in the ledger
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C interrupts, as in every job
        os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that failed has no metrics
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose headings are printed whatever `verbose` says
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, plan=self._plan), self._resources()),
            tune_config=tune.TuneConfig(
                search_alg=source, scheduler=self._scheduler(), num_samples=-1, reuse_actors=self._is_in_process()
            ),
            run_config=tune.RunConfig(
                name=tune_folder.name,
                storage_path=str(tune_folder.parent),
                failure_config=tune.FailureConfig(max_failures=self._config.max_failures),
                stop=self._budget,
                verbose=0,
            ),
        ).fit()

    def _trial(self) -> TrainConfig | TransferConfig:
        return self._plan.trial_config({}, seed=0, name="trial")

    def _is_in_process(self) -> bool:
        return not self._trial().scaling.most_workers()

    def _resources(self) -> dict[str, float]:
        """What the process of a trial reserves; workers of its own reserve theirs."""
        return self._trial().scaling.resources_of_worker() if self._is_in_process() else {"CPU": 0.0}

    def _scheduler(self) -> TrialScheduler:
        settings, watched = self._config.scheduler, self._config.watched_metric()
        mode = "max" if self._config.is_more_better() else "min"
        if settings.kind == "asha":
            return AsyncHyperBandScheduler(
                time_attr="epoch",
                metric=watched,
                mode=mode,
                max_t=self._trial().epochs + 1,  # one that gets to its end ends by itself
                grace_period=settings.grace_epochs,
                reduction_factor=settings.reduction_factor,
            )
        if settings.kind == "median":
            return MedianStoppingRule(
                time_attr="epoch", metric=watched, mode=mode, grace_period=settings.grace_epochs, min_samples_required=3
            )
        return FIFOScheduler()  # of a population: its members wait by themselves

    def _ended(self, record: TrialRecord, told: Mapping[str, Any], *, is_lost: bool) -> TrialRecord:
        """Keep and show what became of a trial, from what it told last, and close its MLflow run when it was ended."""
        folder = self._plan.trial_folder(record.name)
        run_id = run_id_of(folder)
        metrics = {
            name: value
            for name, value in told.items()
            if "/" in name and not name.startswith("config/") and isinstance(value, int | float)
        }
        hours = record.hours + told.get("time_total_s", 0.0) / 3600
        common = {"run_id": run_id, "metrics": metrics, "hours": hours}
        if told.get("ended"):
            record = self._ledger.update(record.name, state="ended", reason="", **common)
        elif told.get("waits"):
            scores = [*record.scores, metrics[self._config.watched_metric()]]
            record = self._ledger.update(record.name, state="waiting", scores=scores, **common)
            self._note_reason(record, "waits for the others of its population")
            return record
        elif is_lost or "failure" in told:
            reason = told.get("failure") or f"its process was lost, or failed, too often: see {folder / 'log.txt'}"
            record = self._ledger.update(record.name, state="failed", reason=reason, **common)
        elif self._budget.stop_all():
            return self._ledger.update(record.name, **common)  # it goes on when the search does
        else:
            reason = f"stopped by {self._config.scheduler.kind} at epoch {told.get('epoch', 0):g}"
            record = self._ledger.update(record.name, state="stopped", reason=reason, **common)
        if record.state != "ended":
            self._note_reason(record, record.reason)
        print(describe_trial(record, self._ledger, self._config), flush=True)
        return record

    def _note_reason(self, record: TrialRecord, reason: str) -> None:
        """Close the MLflow run of a trial that is not at its end, and say why it is not."""
        if (run_id := run_id_of(self._plan.trial_folder(record.name))) is not None:
            trial_run = tracking.Run(self._run.tracking_uri, run_id)
            trial_run.set_tags({tracking.REASON: reason})
            trial_run.finish("FAILED" if record.state == "failed" else "KILLED")

    def _take_over(self, heir: Heir) -> None:
        """Give a member of a population its donor's newest checkpoint in place of its own."""
        record, donor = heir
        assert donor is not None, "or there is nothing to take over"
        num_to_keep = self._trial().checkpoint.num_to_keep
        newest = CheckpointFolder(self._plan.trial_folder(donor.name), num_to_keep).newest()
        if newest is None:
            raise ValueError(
                f"trial {donor.name} has no checkpoint that is whole in {self._plan.folder}: give a new --name"
            )
        CheckpointFolder(self._plan.trial_folder(record.name), num_to_keep).copy(newest)
        scores = f"{record.scores[-1]:.3f} -> {donor.scores[-1]:.3f}"
        print(
            f"epoch {record.donors[-1].partition('@')[2]}, seed {record.seed}: {record.point.label} takes over from "
            f"{donor.point.label} ({self._config.watched_metric()} {scores}), with {record.current.label}",
            flush=True,
        )

    def close(self) -> str:
        """Write the table of trials, register the best one's model where asked; give the summary."""
        table = write_trials(self._plan.folder / "trials.csv", self._ledger)
        self._run.log_artifact(table)
        self._close_cut_off()
        self._run.log_metrics(_counts(self._ledger), step=0)
        summary = describe_search(self._ledger, self._config, table=table, run=self._run)
        registered = self._register_best()
        return summary if registered is None else f"{summary}\nmodel:   {registered}"

    def _register_best(self) -> str | None:
        """Register the model of the best single trial where the search asks for it and one has ended."""
        config, metric = self._config, self._config.watched_metric()
        ended = [record for record in self._ledger.records.values() if record.state == "ended" and record.run_id]
        if config.register is None or not ended:
            return None
        best = (max if config.is_more_better() else min)(ended, key=lambda record: record.metrics[metric])
        run = tracking.Run(self._run.tracking_uri, str(best.run_id))
        return tracking.register_model_of(run, name=config.register, alias=config.alias)

    def _close_cut_off(self) -> None:
        """Trials that a budget cut off are no longer running; they go on when the search does."""
        for record in self._ledger.unfinished():
            self._note_reason(record, "cut off by the budget of the search")


class _Budget(Stopper):
    """Stops all trials when the search has cost what it may."""

    def __init__(self, config: SearchConfig, ledger: Ledger, resources: Mapping[str, float]) -> None:
        self._budget, self._resources = config.budget, dict(resources)
        self._began, self._before = time.monotonic(), sum(record.hours for record in ledger.records.values())
        self._running: dict[str, float] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._running[trial_id] = result["time_total_s"] / 3600
        return False

    def stop_all(self) -> bool:
        budget, trial_hours = self._budget, self._before + sum(self._running.values())
        spent = (
            (budget.hours, (time.monotonic() - self._began) / 3600),
            (budget.cpu_hours, trial_hours * self._resources.get("CPU", 0.0)),
            (budget.gpu_hours, trial_hours * self._resources.get("GPU", 0.0)),
        )
        return any(most is not None and cost >= most for most, cost in spent)


def write_trials(path: Path, ledger: Ledger) -> Path:
    """Write a line a trial: its point, seed, state and metrics; give the path."""
    records = list(ledger.records.values())
    axes = list(dict.fromkeys(axis for record in records for axis in record.point.values))
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics))
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", *axes, "seed", "state", "reason", "donors", "hours", "run_id", *metrics])
        for record in records:
            values = [record.point.values.get(axis, "") for axis in axes]
            found = [record.metrics.get(name, "") for name in metrics]
            donors, hours = " ".join(record.donors), f"{record.hours:.4f}"
            own = [record.seed, record.state, record.reason, donors, hours, record.run_id or ""]
            writer.writerow([record.name, *values, *own, *found])
    return path


def _counts(ledger: Ledger) -> dict[str, float]:
    states = [record.state for record in ledger.records.values()]
    return {f"trials/{state}": float(states.count(state)) for state in sorted(set(states))}
