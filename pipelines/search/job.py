"""A base recipe and a space over its settings become trials on Ray Tune, all of them in MLflow (paper Tables 2 to 6).

STORAGE/NAME/search.json      what the search is: settings, MLflow run
STORAGE/NAME/trials.jsonl     what became of every trial
STORAGE/NAME/trials/TRIAL/    every trial's run
STORAGE/NAME/trials.csv       the result: a line per trial

A killed search resumes when it is started again: ended trials are kept, the others resume from their checkpoints, and
all keep their MLflow runs. Ray Tune runs, schedules and stops trials. Their history is in files of our own, because
Tune's snapshots lag behind.
"""

import csv
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from pipelines.baseline.config import BaselineConfig
from pipelines.runtime import pools, session
from pipelines.runtime.files import whole_file
from pipelines.runtime.job_run import tracking_uri_of
from pipelines.runtime.named_folder import NamedFolder
from pipelines.runtime.paths import new_name, output_path
from pipelines.runtime.shared_storage import check_shared
from pipelines.search.checks import Rejection, check_held_out, check_some_point_is_left, make_plan, room_for_trials
from pipelines.search.config import SearchConfig
from pipelines.search.ledger import Ledger, TrialRecord
from pipelines.search.population import Heir
from pipelines.search.stopping import EarlyStopping, Reports
from pipelines.search.summary import describe_search, describe_trial
from pipelines.search.trial import SearchPlan, TrialConfig, run_trial
from pipelines.search.trial_source import TrialSource
from pipelines.settings.section import (
    RESUMABLE,
    added_defaults,
    config_fingerprint,
    flatten,
    names_of_roles,
    without_added,
)
from pipelines.tracking.models import register_model_of
from pipelines.tracking.recorded import PARENT, find_runs
from pipelines.tracking.runs import Run
from pipelines.train.config import TrainConfig
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.run_folder import run_id_of
from pipelines.transfer.config import TransferConfig
from t3d_core.errors import UserError

_LOG = logging.getLogger(__name__)
# What a trial reserves whose workers are separate processes: no part of a CPU, because decoding needs a whole one.
_OF_CONTROLLER = {"memory": 1e6}


def run_search(config: SearchConfig) -> str:
    """Train every point of `config` with every seed; return the closing summary.

    Raises:
        UserError: settings of the base recipe or of the space are wrong; raised before anything starts.
        UserError: points, shards or resources cannot work; raised before anything starts.
    """
    path = output_path(config.storage) / (config.name or new_name("search"))
    plan = make_plan(config, path, tracking_uri=tracking_uri_of(config.tracking))
    config = plan.config
    reject = Rejection(plan)
    check_some_point_is_left(config, reject)
    session.connect()
    max_concurrent = room_for_trials(plan)
    check_shared(written=output_path(config.storage))
    folder = NamedFolder(path, "search", _fingerprint(plan))
    with folder.exclusive():
        known = folder.known(when_changed="begun with other settings or another base recipe")
        check_held_out(plan, folder)
        with folder.open_run(config, config.tracking, known=known, stage="search", params=_params(config)) as run:
            if known is None:
                _write_base_recipes(plan, run)
                folder.record(config, run)
            ledger = Ledger(path / "trials.jsonl")
            search = _Search(plan, ledger, run, reject=reject, max_concurrent=max_concurrent)
            search.close_left_running("its process was killed")
            try:
                search.run_trials()
            except BaseException:
                search.close_left_running("the search was interrupted")
                raise
            return search.close()


def _fingerprint(plan: SearchPlan) -> str:
    """All that decides what a search computes: its settings, and those of the recipes that it names.

    A recipe may have been extended since by settings that were added, with what they did before.
    """
    added = added_defaults(TrainConfig) | added_defaults(TransferConfig) | added_defaults(BaselineConfig)
    parts = [
        config_fingerprint(plan.config, exclude=names_of_roles(SearchConfig, RESUMABLE)),
        without_added(plan.base, added),
        {name: without_added(recipe, added) for name, recipe in plan.transfer_bases.items()} or None,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _params(config: SearchConfig) -> dict[str, object]:
    """The settings; the space is one parameter, because MLflow refuses some of the names that people choose in it."""
    space = json.dumps(config.model_dump(mode="json", exclude_none=True)["space"])
    return {name: value for name, value in flatten(config).items() if not name.startswith("space.")} | {"space": space}


def _write_base_recipes(plan: SearchPlan, run: Run) -> None:
    """Keep the recipes that the search names: the files may change later."""
    transfers = {f"transfer_{name}.yaml": recipe for name, recipe in plan.transfer_bases.items()}
    for name, recipe in {"base.yaml": plan.base, **transfers}.items():
        text = yaml.safe_dump(recipe, sort_keys=False)
        run.log_text(text, name)
        (plan.folder / name).write_text(text)


class _Search:
    """The trials of one search, on Ray Tune."""

    def __init__(self, plan: SearchPlan, ledger: Ledger, run: Run, *, reject: Rejection, max_concurrent: int) -> None:
        tags = {PARENT: run.run_id, "search": plan.folder.name}
        self._plan = replace(plan, tags=tags)
        self._config, self._ledger, self._run = plan.config, ledger, run
        self._reject, self._max_concurrent = reject, max_concurrent
        scaling = self._trial().scaling
        of_trial = {name: max(1, scaling.most_workers()) * each for name, each in scaling.resources_of_worker().items()}
        self._reports = Reports(plan.config, ledger, of_trial)

    def run_trials(self) -> None:
        """Run the trials that are left, within the budget."""
        source = TrialSource(
            self._config,
            self._ledger,
            max_concurrent=self._max_concurrent,
            reject=self._reject,
            ended=self._ended,
            take_over=self._take_over,
            transfers_of=self._transfers_of,
            transferred=self._transferred,
        )
        tune_folder = self._plan.folder / "tune"
        shutil.rmtree(tune_folder, ignore_errors=True)  # left by an earlier start; the ledger has all that counts
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C interrupts, as in every job
        os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that failed has no metrics
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its headings ignore `verbose`
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, plan=self._plan), self._resources()),
            tune_config=tune.TuneConfig(
                search_alg=source, scheduler=self._scheduler(), num_samples=-1, reuse_actors=self._is_in_process()
            ),
            run_config=tune.RunConfig(
                name=tune_folder.name,
                storage_path=str(tune_folder.parent),
                failure_config=tune.FailureConfig(max_failures=self._config.max_failures),
                stop=self._reports,
                verbose=0,
            ),
        ).fit()

    def _trial(self) -> TrialConfig:
        return self._plan.trial_config({}, seed=0, name="trial")

    def _is_in_process(self) -> bool:
        return not self._trial().scaling.most_workers()

    def _resources(self) -> tune.PlacementGroupFactory:
        """What the process of a trial reserves, and where; separate workers reserve their own."""
        if not self._is_in_process():
            return tune.PlacementGroupFactory([_OF_CONTROLLER])
        labels = pools.selector("train")
        return tune.PlacementGroupFactory(
            [self._trial().scaling.resources_of_worker()], bundle_label_selector=[labels] if labels else None
        )

    def _scheduler(self) -> TrialScheduler:
        if self._config.scheduler.kind in ("asha", "median"):
            trial = self._trial()
            assert not isinstance(trial, BaselineConfig), "the config has checked it"
            return EarlyStopping(self._config, self._ledger, epochs=trial.epochs)
        return FIFOScheduler()  # members of a population wait by themselves

    def _ended(self, record: TrialRecord, report: Mapping[str, Any], *, is_lost: bool) -> TrialRecord:
        """Record and print the outcome of a trial from its last report; close its MLflow run if it was stopped."""
        folder = self._plan.trial_folder(record.name)
        run_id = run_id_of(folder)
        record = self._ledger.records[record.name]  # with what was reported meanwhile
        metrics = {
            name: value
            for name, value in report.items()
            if "/" in name and not name.startswith("config/") and isinstance(value, int | float)
        }
        common = {"run_id": run_id, "metrics": metrics}
        if report.get("ended"):
            record = self._ledger.update(record.name, state="ended", reason="", **common)
        elif report.get("waits"):
            scores = [*record.scores, metrics[self._config.watched_metric()]]
            record = self._ledger.update(record.name, state="waiting", scores=scores, **common)
            self._note_reason(record, "waiting for the other trials of its population")
            return record
        elif is_lost or "failure" in report:
            reason = report.get("failure") or _lost(folder)
            record = self._ledger.update(record.name, state="failed", reason=reason, **common)
        elif self._reports.stop_all():
            return self._ledger.update(record.name, **common)  # it resumes with the search
        else:
            reason = f"stopped by {self._config.scheduler.kind} at epoch {report.get('epoch', 0):g}"
            record = self._ledger.update(record.name, state="stopped", reason=reason, **common)
        if record.state != "ended":
            self._note_reason(record, record.reason)
        print(describe_trial(record, self._ledger, self._config), flush=True)
        return record

    def _transfers_of(self, record: TrialRecord) -> list[str]:
        trial = self._plan.trial_config(record.point.settings, seed=record.seed, name=record.name)
        return [str(transfer.name) for transfer in self._plan.transfers_before(trial)]

    def _transferred(self, name: str, report: Mapping[str, Any], *, is_lost: bool) -> str | None:
        """Print the outcome of a transfer; return why it failed, "" if it ended, and None if it was interrupted."""
        if report.get("transferred"):
            print(f"{name}: ended, {report['time_total_s']:.0f} s", flush=True)
            return ""
        if not is_lost and "failure" not in report:
            return None
        reason = str(report.get("failure") or _lost(self._plan.transfers_folder / name))
        print(f"{name}: failed, {reason}", flush=True)
        return reason

    def _note_reason(self, record: TrialRecord, reason: str) -> None:
        """Close the MLflow run of a trial that has not ended, with the reason."""
        if (run_id := run_id_of(self._plan.trial_folder(record.name))) is not None:
            trial_run = Run(self._run.tracking_uri, run_id)
            trial_run.close_if_possible("FAILED" if record.state == "failed" else "KILLED", reason=reason)

    def _take_over(self, heir: Heir) -> None:
        """Replace the checkpoint of a member of a population by its donor's newest one."""
        record, donor = heir
        assert donor is not None, "only a member with a donor takes over"
        trial = self._trial()
        assert not isinstance(trial, BaselineConfig), "the config has checked it"
        num_to_keep = trial.checkpoint.num_to_keep
        newest = CheckpointFolder(self._plan.trial_folder(donor.name), num_to_keep).newest()
        if newest is None:
            raise UserError(f"trial {donor.name} has no complete checkpoint in {self._plan.folder}: give a new --name")
        CheckpointFolder(self._plan.trial_folder(record.name), num_to_keep).copy(newest)
        scores = f"{record.scores[-1]:.3f} -> {donor.scores[-1]:.3f}"
        print(
            f"epoch {record.donors[-1].partition('@')[2]}, seed {record.seed}: {record.point.label} takes over from "
            f"{donor.point.label} ({self._config.watched_metric()} {scores}), with {record.current.label}",
            flush=True,
        )

    def close(self) -> str:
        """Write the table of trials, register the best model if asked to; return the summary."""
        table = write_trials(self._plan.folder / "trials.csv", self._ledger)
        self._run.log_artifact(table)
        self.close_left_running("interrupted by the budget of the search")
        self._run.log_metrics(_counts(self._ledger), step=0)
        registered = self._register_best()
        return describe_search(self._ledger, self._config, table=table, registered=registered, run=self._run)

    def _register_best(self) -> str | None:
        """Register the model of the best single trial, if the search asks for it and a trial has ended."""
        config, metric = self._config, self._config.watched_metric()
        ended = [record for record in self._ledger.records.values() if record.state == "ended" and record.run_id]
        if config.register is None or not ended:
            return None
        best = (max if config.is_more_better() else min)(ended, key=lambda record: record.metrics[metric])
        run = Run(self._run.tracking_uri, str(best.run_id))
        return register_model_of(run, name=config.register, alias=config.alias)

    def close_left_running(self, reason: str) -> None:
        """Close the MLflow runs of trials, tests and transfers whose processes are gone.

        Trials that resume later open their runs again.
        """
        for record in self._ledger.unfinished():
            self._note_reason(record, reason)
        trials = {run_id_of(self._plan.trial_folder(record.name)) for record in self._ledger.records.values()}
        try:
            running = find_runs(
                self._run.tracking_uri,
                experiment=self._config.tracking.experiment,
                condition="attributes.status = 'RUNNING'",
            )
        except UserError as error:
            _LOG.warning("MLflow runs that were left open cannot be closed: %s", error)
            return
        for run in running:
            if run.parent_id is not None and run.parent_id in {self._run.run_id, *trials}:
                Run(self._run.tracking_uri, run.run_id).close_if_possible("KILLED", reason=reason)


def _lost(folder: Path) -> str:
    """Why a run without a report of its end failed."""
    log = folder / "log.txt"
    lines = log.read_text().split("\n") if log.is_file() else []
    last = next((line for line in reversed(lines) if line.strip()), "no log was written")
    return f"lost or failed too often; its last line: {last}"


def write_trials(path: Path, ledger: Ledger) -> Path:
    """Write a line per trial: its point, seed, state and metrics; return the path."""
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
