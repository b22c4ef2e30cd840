"""What a store knows about its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow.artifacts
import mlflow.entities
from mlflow import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipelines.tracking.database import ANOTHER_STORE
from pipelines.tracking.store import (
    check_answers,
    check_is_there,
    check_not_deleted,
    open_client,
    patient,
    reason_of,
)
from t3d_core.errors import UserError

PARENT = "mlflow.parentRunId"
STARTED_FROM = "started_from"  # tag of a training run: the run whose weights it starts from
POINT, AXIS = "point", "axis."  # tags of a trial: what its point is called, and its value on each axis
TRAINED_BY = "trained_by"  # tag of a test: the run whose weights it tests
SEEN_BEFORE = "seen_before"  # tag of a training run or a test: which of its test videos its weights saw before
HELD_OUT = "held_out"  # tag of a training run: the seed of the sources of split `train` that validate, or NOTHING
NOTHING = "nothing"
_RUNS_A_PAGE = 100


@dataclass(frozen=True)
class RecordedRun:
    """What a store knows about a run.

    Attributes:
        run_id: MLflow's id.
        name: what people call it.
        status: RUNNING, FINISHED, FAILED or KILLED.
        params: dotted name -> value, as text.
        tags: without MLflow's own, except the parent's.
        metrics: name -> last value.
        datasets: names of the data sets that were used.
        files: address of its files.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[str, ...]
    files: str

    @property
    def parent_id(self) -> str | None:
        """The run that this one belongs to."""
        return self.tags.get(PARENT)


def find_runs(tracking_uri: str, *, experiment: str, condition: str = "") -> list[RecordedRun]:
    """All runs of an experiment that meet a condition in MLflow's language, the oldest first.

    Raises:
        UserError: the store is not there or cannot be opened, or has no such experiment, or the experiment was deleted.
    """
    check_answers(tracking_uri)
    check_is_there(tracking_uri)
    try:
        client = open_client(tracking_uri)
        found = patient(client.get_experiment_by_name)(experiment)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"the tracking store {tracking_uri} cannot be read ({reason_of(error)}): {ANOTHER_STORE}"
        ) from error
    if found is None:
        names = ", ".join(sorted(each.name for each in patient(client.search_experiments)())) or "none"
        raise UserError(f"experiment {experiment!r} is not in {tracking_uri}; there are: {names}")
    check_not_deleted(found, tracking_uri=tracking_uri)
    runs: list[RecordedRun] = []
    token = None
    while True:
        page = patient(client.search_runs)(
            [found.experiment_id], condition, max_results=_RUNS_A_PAGE, order_by=["start_time ASC"], page_token=token
        )
        runs += [_recorded(run) for run in page]
        token = page.token
        if not token:
            return runs


def read_curve(tracking_uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    """All values of one metric, as (step, value) in the order of steps; none where the run has no such metric."""
    history = patient(open_client(tracking_uri).get_metric_history)(run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def fetch_artifact(tracking_uri: str, run: RecordedRun, name: str) -> Path | None:
    """Download a run's file; None where there is no such file."""
    try:
        return Path(mlflow.artifacts.download_artifacts(f"{run.files}/{name}", tracking_uri=tracking_uri))
    except (MlflowException, OSError):
        return None


def _recorded(run: mlflow.entities.Run) -> RecordedRun:
    tags = {name: value for name, value in run.data.tags.items() if name == PARENT or not name.startswith("mlflow.")}
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return RecordedRun(
        run.info.run_id,
        run.info.run_name,
        run.info.status,
        run.data.params,
        tags,
        run.data.metrics,
        tuple(dict.fromkeys(each.dataset.name for each in inputs)),
        run.info.artifact_uri,
    )
