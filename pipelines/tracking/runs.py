"""A run and what it logs go into an MLflow store.

This room alone imports mlflow. It works through `MlflowClient` with the store's address in hand, never through
MLflow's global state: driver, workers and several runs of one process cannot disturb each other.
"""

import json
import logging
import math
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from sqlalchemy.exc import SQLAlchemyError

from pipelines.tracking.database import ANOTHER_STORE
from pipelines.tracking.store import (
    CONNECT_AND_READ_SECONDS,
    SERVER,
    StoreAwayError,
    artifact_location,
    at_store,
    check_answers,
    check_not_deleted,
    open_client,
    patient,
    reason_of,
)
from t3d_core.errors import UserError

REASON = "reason"  # tag of a run that ended as KILLED or FAILED
_MARK = "mark"  # tag of a run that resumes when it is started again, unique in the world
_LOG = logging.getLogger(__name__)
_MAX_PARAM_LENGTH, _MAX_DIGEST_LENGTH, MAX_POINTS = 6000, 36, 1000  # limits of MLflow's stores


class PausedError(Exception):
    """Raised inside a run that is paused and resumes later: until then its status in MLflow is KILLED."""


class PointsRefusedError(UserError):
    """The store refuses one of these points, now and later."""


class Point(NamedTuple):
    """One value of one curve, with its time."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class Run:
    """One MLflow run: small enough to send to workers, opened where it is used.

    Attributes:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        run_id: MLflow's id of the run.
    """

    tracking_uri: str
    run_id: str

    @patient
    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write all `metrics` of one step in one call."""
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        open_client(self.tracking_uri).log_batch(self.run_id, metrics=points)

    def log_points(self, points: Sequence[Point]) -> None:
        """Write up to MAX_POINTS points in one try; points that the run has already stay single.

        MLflow keeps NaN as NaN, and an infinite value as the largest float.

        Raises:
            StoreAwayError: try again later.
            PointsRefusedError: the store refuses some of them, and takes none.
        """
        try:
            if self.tracking_uri.startswith(SERVER):
                _post_points(self, points)
            else:
                metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
                open_client(self.tracking_uri).log_batch(self.run_id, metrics=metrics)
        except (MlflowException, SQLAlchemyError) as error:
            is_refused = getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
            raise (PointsRefusedError if is_refused else StoreAwayError)(reason_of(error)) from error

    def log_params(self, flat: Mapping[str, object]) -> None:
        """Write parameters by dotted name; a long value is cut at the store's 6000 characters.

        Raises:
            UserError: a resumed run has another value for one of them.
        """
        params = [Param(name, str(value)[:_MAX_PARAM_LENGTH]) for name, value in flat.items()]
        try:
            patient(open_client(self.tracking_uri).log_batch)(self.run_id, params=params)
        except MlflowException as error:
            raise UserError(f"run {self.run_id} does not accept these parameters: {error}") from error

    @patient
    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write or overwrite tags."""
        open_client(self.tracking_uri).log_batch(
            self.run_id, tags=[RunTag(name, value) for name, value in tags.items()]
        )

    @patient
    def log_text(self, text: str, artifact_file: str) -> None:
        """Write `text` as the run's file `artifact_file`."""
        open_client(self.tracking_uri).log_text(self.run_id, text, artifact_file)

    @patient
    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Copy the file or folder at `path` to the run, into its folder `artifact_path`."""
        open_client(self.tracking_uri).log_artifact(self.run_id, str(path), artifact_path)

    @patient
    def log_dataset(self, name: str, fingerprint: str, source: str, *, context: str = "train") -> None:
        """Record the data that was used.

        Args:
            name: name of the data for people.
            fingerprint: changes when the data does; its first 36 characters become MLflow's digest.
            source: path or address of the data.
            context: what the data was used for, such as `train` or `test`.
        """
        scheme, has_scheme, _ = source.partition("://")
        dataset = Dataset(
            name, fingerprint[:_MAX_DIGEST_LENGTH], scheme if has_scheme else "local", json.dumps({"uri": source})
        )
        used_as = InputTag("mlflow.data.context", context)
        open_client(self.tracking_uri).log_inputs(self.run_id, [DatasetInput(dataset, [used_as])])

    @patient
    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; `start_run` with its id opens it again."""
        open_client(self.tracking_uri).set_terminated(self.run_id, status)

    def close_if_possible(self, status: Literal["FAILED", "KILLED"], *, reason: str | None = None) -> None:
        """Close a run that has not ended, with the reason; an unavailable store gives a warning and no error."""
        try:
            check_answers(self.tracking_uri)
            if reason is not None:
                self.set_tags({REASON: reason})
            self.finish(status)
        except (MlflowException, SQLAlchemyError, UserError, OSError) as error:
            _LOG.warning("The interrupted run %s in %s cannot be closed: %s", self.run_id, self.tracking_uri, error)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the run by how the block ended: FINISHED, FAILED, or KILLED from the keyboard or by a search."""
        if kind is None:
            self.finish()
        else:
            is_interrupted = issubclass(kind, KeyboardInterrupt | SystemExit | PausedError)
            self.close_if_possible("KILLED" if is_interrupted else "FAILED")

    @patient
    def describe(self) -> str:
        """One line that shows how to open this run."""
        if self.tracking_uri.startswith(SERVER):
            experiment_id = open_client(self.tracking_uri).get_run(self.run_id).info.experiment_id
            return f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {shlex.quote(self.tracking_uri)}  # run {self.run_id}"


def start_run(
    *,
    tracking_uri: str,
    experiment: str,
    run_name: str,
    run_id: str | None,
    tags: Mapping[str, str],
    mark: str | None = None,
) -> Run:
    """Open a new run, or resume an old one.

    Args:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        experiment: its name; created when it is missing.
        run_name: name of a new run.
        run_id: the run to resume; None for a new one.
        tags: such as `mlflow.source.git.commit`, `mlflow.source.name`, `mlflow.user`.
        mark: tag of a new run. An unfinished run that already has this tag is deleted: its process was killed before it
            stored the id, and has done nothing yet.

    Raises:
        UserError: the store cannot be opened, or the run or the experiment is gone from it.
    """
    check_answers(tracking_uri)
    if run_id is not None:
        return _continue_run(Run(tracking_uri, run_id), tags=tags)
    try:
        client = open_client(tracking_uri)
        experiment_id = patient(_experiment_id)(client, experiment)
        if mark is not None:
            tags = {**tags, _MARK: mark}
            never_kept = f"tags.{_MARK} = '{mark}' and attributes.status != 'FINISHED'"
            for begun in patient(client.search_runs)([experiment_id], never_kept):
                patient(client.delete_run)(begun.info.run_id)
        created = patient(client.create_run)(experiment_id, tags=dict(tags), run_name=run_name)
        return Run(tracking_uri, created.info.run_id)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"no run can be started in the tracking store {tracking_uri} ({reason_of(error)}): check that this user "
            f"may write to it, or {ANOTHER_STORE}"
        ) from error


def _post_points(run: Run, points: Sequence[Point]) -> None:
    """Send the points once, without the minutes of retries of `MlflowClient.log_batch`."""
    metrics = [
        # JSON has no NaN: MLflow accepts the words that `dumps` writes, as strings.
        {"key": name, "value": value if math.isfinite(value) else json.dumps(value), "timestamp": time_ms, "step": step}
        for name, value, time_ms, step in points
    ]
    response = http_request(
        get_default_host_creds(run.tracking_uri),
        "/api/2.0/mlflow/runs/log-batch",
        "POST",
        json={"run_id": run.run_id, "metrics": metrics},
        max_retries=0,
        timeout=CONNECT_AND_READ_SECONDS,
        raise_on_status=False,
    )
    verify_rest_response(response, "/api/2.0/mlflow/runs/log-batch")


def _continue_run(run: Run, *, tags: Mapping[str, str]) -> Run:
    client = open_client(run.tracking_uri)
    try:
        known = patient(client.get_run)(run.run_id)
        # First the experiment: its runs were deleted with it, and are restored with it.
        experiment = patient(client.get_experiment)(known.info.experiment_id)
        check_not_deleted(experiment, tracking_uri=run.tracking_uri)
        if known.info.lifecycle_stage == LifecycleStage.DELETED:
            restore = at_store(run.tracking_uri, f"mlflow runs restore --run-id {run.run_id}")
            raise UserError(
                f"run {run.run_id} is deleted in the tracking store {run.tracking_uri}, so it cannot be resumed: "
                f"restore it with `{restore}`, or start again with a new --name"
            )
        patient(client.update_run)(run.run_id, status="RUNNING")
    except MlflowException as error:
        raise UserError(
            f"run {run.run_id} cannot be resumed in the tracking store {run.tracking_uri} ({error}): give the store "
            f"that has it with --tracking.uri, or start again with a new --name"
        ) from error
    if REASON in known.data.tags:
        patient(client.delete_tag)(run.run_id, REASON)
    run.set_tags(tags)
    return run


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Find or create the experiment; if several processes create it at once, one succeeds and all find it.

    Raises:
        UserError: the experiment was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_location(client.tracking_uri))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    check_not_deleted(found, tracking_uri=client.tracking_uri)
    return found.experiment_id
