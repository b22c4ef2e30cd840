"""What a run did goes into an MLflow store, and weights come back out of it.

This module alone imports mlflow. It works through `MlflowClient` with the store's address in hand, never through
MLflow's global state: driver, workers and several runs of one process cannot get into each other's way.

A store that is away: a server must answer within seconds when a process first turns to it; after that its calls are
tried again for minutes, and so are those to a sqlite file that another process has locked.
"""

import fcntl
import functools
import json
import logging
import math
import os
import re
import shlex
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import mlflow.artifacts
import mlflow.entities
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from sqlalchemy.exc import SQLAlchemyError
from urllib3.exceptions import HTTPError

import t3d_core
from t3d_core.training.weights_card import WeightsCard, read_card

MODEL_NAME = "model"
PARENT = "mlflow.parentRunId"
STARTED_FROM = "started_from"  # tag of a training run: the run whose weights it starts from
POINT, AXIS = "point", "axis."  # tags of a trial: what its point is called, and its value on each axis
REASON = "reason"  # tag of a run that ended as KILLED or FAILED
_MARK = "mark"  # tag of a run that goes on when it is started again, unique in the world
TRAINED_BY = "trained_by"  # tag of a test: the run whose weights it tests
# What `logged_model.py` needs; a test holds the list against pyproject.toml.
MODEL_REQUIREMENTS = ("torch>=2.14", "torchvision>=0.29", "numpy>=2.4", "safetensors>=0.8", "mlflow>=3.17")
_LOG = logging.getLogger(__name__)
_SQLITE = "sqlite:///"
_SERVER = ("http://", "https://")
_RUNS_A_PAGE = 100
_MAX_PARAM_LENGTH, _MAX_DIGEST_LENGTH, MAX_POINTS = 6000, 36, 1000  # limits of MLflow's stores
_SECONDS_TO_ANSWER = 10.0  # for a server that a process turns to for the first time
_SECONDS_OF_PATIENCE = 120.0  # with a locked sqlite file; with a server MLflow has 240
_SECONDS_BETWEEN_TRIES = 1.0
_CONNECT_AND_READ_SECONDS = (4.0, 60.0)  # of one try
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class StoreAwayError(ValueError):
    """The store cannot be reached or does not answer now; it may take the same later."""


class PausedError(Exception):
    """Raised inside a run that is left for now and goes on later: until then MLflow has it as KILLED."""


class PointsRefusedError(ValueError):
    """The store does not take one of these points, now or later."""


class Point(NamedTuple):
    """One value of one curve, with the time that it is of."""

    name: str
    value: float
    time_ms: int
    step: int


def resolve_tracking_uri(uri: str | None, *, base: Path) -> str:
    """Settle which store a run writes to, so that every worker finds the same one from its own folder.

    Args:
        uri: the configured address; none means MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.
        base: the folder that relative paths start from.

    Returns:
        The address, with an absolute path when it is a sqlite file or a folder; a server's address as it came.

    Raises:
        ValueError: it holds a password.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{base.absolute() / uri.removeprefix(_SQLITE)}"
    if uri.startswith("file:///"):
        return uri
    if ":" in uri and not uri.startswith("file:"):
        _check_no_password(uri)
        return uri
    return (base.absolute() / uri.removeprefix("file:")).as_uri()


def _check_no_password(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    # Before an @ a colon ends the user's name, but for that of a port; a password may hold slashes.
    has_user = re.match(r"[^/:@]*:(?!\d+/)", place.rpartition("@")[0])
    if has_user or re.search(r"(password|passwd|pwd)=", unquote(query), re.IGNORECASE):
        raise ValueError(
            f"tracking.uri {scheme}://... came with a password in it, which would be logged: give that by environment "
            "variables (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL)"
        )


def _patient(call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a call that meets a locked sqlite file try again; MLflow itself tries a server's again, for four minutes."""

    @functools.wraps(call)
    def tried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        deadline = time.monotonic() + _SECONDS_OF_PATIENCE
        while True:
            try:
                return call(*args, **kwargs)
            except (MlflowException, SQLAlchemyError) as error:
                is_locked = "database is locked" in str(error)
                if not is_locked and not any(isinstance(cause, HTTPError) for cause in _causes(error)):
                    raise
                if not is_locked or time.monotonic() > deadline:
                    raise StoreAwayError(
                        f"the tracking store cannot be reached ({error}): start the job again once it can"
                    ) from error
            time.sleep(_SECONDS_BETWEEN_TRIES)

    return tried


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@dataclass(frozen=True)
class Run:
    """One MLflow run: small enough to send to workers, opened where it is used.

    Attributes:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        run_id: MLflow's id of the run.
    """

    tracking_uri: str
    run_id: str

    @_patient
    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write all `metrics` of one step in one call."""
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        _client(self.tracking_uri).log_batch(self.run_id, metrics=points)

    def log_points(self, points: Sequence[Point]) -> None:
        """Write up to MAX_POINTS points in one try; points that the run has already stay single.

        NaN stays NaN, an infinite value becomes the largest float: so MLflow keeps them.

        Raises:
            StoreAwayError: try again later.
            PointsRefusedError: not all of them can be taken, and none is.
        """
        try:
            if self.tracking_uri.startswith(_SERVER):
                _post_points(self, points)
            else:
                metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
                _client(self.tracking_uri).log_batch(self.run_id, metrics=metrics)
        except (MlflowException, SQLAlchemyError) as error:
            is_refused = getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
            raise (PointsRefusedError if is_refused else StoreAwayError)(_reason(error)) from error

    def log_params(self, flat: Mapping[str, object]) -> None:
        """Write parameters by dotted name; a long value is cut at the store's 6000 characters.

        Raises:
            ValueError: a continued run has another value for one of them.
        """
        params = [Param(name, str(value)[:_MAX_PARAM_LENGTH]) for name, value in flat.items()]
        try:
            _patient(_client(self.tracking_uri).log_batch)(self.run_id, params=params)
        except MlflowException as error:
            raise ValueError(f"run {self.run_id} does not take these parameters: {error}") from error

    @_patient
    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write or overwrite tags."""
        _client(self.tracking_uri).log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    @_patient
    def log_text(self, text: str, artifact_file: str) -> None:
        """Write `text` as the run's file `artifact_file`."""
        _client(self.tracking_uri).log_text(self.run_id, text, artifact_file)

    @_patient
    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Copy the file or folder at `path` to the run, into its folder `artifact_path`."""
        _client(self.tracking_uri).log_artifact(self.run_id, str(path), artifact_path)

    @_patient
    def log_dataset(self, name: str, fingerprint: str, source: str, *, context: str = "train") -> None:
        """Say which data went in.

        Args:
            name: what a person calls the data.
            fingerprint: changes when the data does; its first 36 characters become MLflow's digest.
            source: path or address of the data.
            context: what the data was used for, such as `train` or `test`.
        """
        scheme, has_scheme, _ = source.partition("://")
        dataset = Dataset(
            name, fingerprint[:_MAX_DIGEST_LENGTH], scheme if has_scheme else "local", json.dumps({"uri": source})
        )
        used_as = InputTag("mlflow.data.context", context)
        _client(self.tracking_uri).log_inputs(self.run_id, [DatasetInput(dataset, [used_as])])

    @_patient
    def log_model(self, weights_path: Path) -> str:
        """Store the weights file as a model that MLflow can load and serve, belonging to this run.

        Args:
            weights_path: a weights file with a head; its card gives the model's signature.

        Returns:
            The model's address, `models:/m-...`.

        Raises:
            ValueError: the file cannot be read or its network has no head.
        """
        signature = _signature(read_card(weights_path), weights_path)
        client = _client(self.tracking_uri)
        experiment_id = client.get_run(self.run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name=MODEL_NAME, source_run_id=self.run_id)
        description = Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=self.run_id,
            model_id=logged.model_id,
        )
        with tempfile.TemporaryDirectory() as folder:
            _save_model(weights_path, Path(folder) / MODEL_NAME, description=description, signature=signature)
            client.log_model_artifacts(logged.model_id, str(Path(folder) / MODEL_NAME))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return logged.model_uri

    @_patient
    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; `start_run` with its id opens it again."""
        _client(self.tracking_uri).set_terminated(self.run_id, status)

    def close_if_possible(self, status: Literal["FAILED", "KILLED"], *, reason: str | None = None) -> None:
        """Close a run that is not at its end, and say why; a store that is away is warned of, and no reason to stop."""
        try:
            check_answers(self.tracking_uri)
            if reason is not None:
                self.set_tags({REASON: reason})
            self.finish(status)
        except (MlflowException, SQLAlchemyError, ValueError, OSError) as error:
            _LOG.warning("The interrupted run %s in %s cannot be closed: %s", self.run_id, self.tracking_uri, error)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the run as what happened in the block: FINISHED, FAILED, or KILLED from the keyboard or by a search."""
        if kind is None:
            self.finish()
        else:
            is_interrupted = issubclass(kind, KeyboardInterrupt | SystemExit | PausedError)
            self.close_if_possible("KILLED" if is_interrupted else "FAILED")

    @_patient
    def describe(self) -> str:
        """Say in one line how a person gets to see this run."""
        if self.tracking_uri.startswith(_SERVER):
            experiment_id = _client(self.tracking_uri).get_run(self.run_id).info.experiment_id
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
    """Open a new run, or go on with an old one.

    Args:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        experiment: its name; made when it is missing.
        run_name: name of a new run.
        run_id: the run to go on with; none for a new one.
        tags: such as `mlflow.source.git.commit`, `mlflow.source.name`, `mlflow.user`.
        mark: tag of a new run. One that has it already and has not finished is deleted: who began it was killed before
            its id was kept, and has done nothing yet.

    Raises:
        ValueError: the store cannot be opened, or the run or the experiment is gone from it.
    """
    check_answers(tracking_uri)
    if run_id is not None:
        return _continue_run(Run(tracking_uri, run_id), tags=tags)
    try:
        client = _client(tracking_uri)
        experiment_id = _patient(_experiment_id)(client, experiment)
        if mark is not None:
            tags = {**tags, _MARK: mark}
            never_kept = f"tags.{_MARK} = '{mark}' and attributes.status != 'FINISHED'"
            for begun in _patient(client.search_runs)([experiment_id], never_kept):
                _patient(client.delete_run)(begun.info.run_id)
        created = _patient(client.create_run)(experiment_id, tags=dict(tags), run_name=run_name)
        return Run(tracking_uri, created.info.run_id)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise ValueError(f"no run can be started in the tracking store {tracking_uri}: {error}") from error


@dataclass(frozen=True)
class RecordedRun:
    """What a store knows of a run.

    Attributes:
        run_id: MLflow's id.
        name: what people call it.
        status: RUNNING, FINISHED, FAILED or KILLED.
        params: dotted name -> value, as text.
        tags: without MLflow's own, but for the parent's.
        metrics: name -> last value.
        datasets: names of the data sets that went in.
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
        """The run inside which it ran."""
        return self.tags.get(PARENT)


def find_runs(tracking_uri: str, *, experiment: str, condition: str = "") -> list[RecordedRun]:
    """All runs of an experiment that meet a condition in MLflow's language, the oldest first.

    Raises:
        ValueError: the store cannot be opened, or has no such experiment.
    """
    check_answers(tracking_uri)
    client = _client(tracking_uri)
    found = _patient(client.get_experiment_by_name)(experiment)
    if found is None:
        names = ", ".join(sorted(each.name for each in _patient(client.search_experiments)())) or "none"
        raise ValueError(f"experiment {experiment!r} is not in {tracking_uri}; there are: {names}")
    runs: list[RecordedRun] = []
    token = None
    while True:
        page = _patient(client.search_runs)(
            [found.experiment_id], condition, max_results=_RUNS_A_PAGE, order_by=["start_time ASC"], page_token=token
        )
        runs += [_recorded(run) for run in page]
        token = page.token
        if not token:
            return runs


def get_run(tracking_uri: str, run_id: str) -> RecordedRun:
    """What the store knows of one run.

    Raises:
        ValueError: it has no such run.
    """
    check_answers(tracking_uri)
    try:
        return _recorded(_patient(_client(tracking_uri).get_run)(run_id))
    except MlflowException as error:
        raise ValueError(f"run {run_id} is not in {tracking_uri}: check its id, and MLFLOW_TRACKING_URI") from error


def read_curve(tracking_uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    """All values of one metric, as (step, value) in the order of steps; none where the run has no such metric."""
    history = _patient(_client(tracking_uri).get_metric_history)(run_id, name)
    return sorted((metric.step, metric.value) for metric in history)


def fetch_artifact(tracking_uri: str, run: RecordedRun, name: str) -> Path | None:
    """Bring a run's file to this machine; none where there is no such file."""
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


@_patient
def register_model(run: Run, model_uri: str, *, name: str, alias: str | None) -> str:
    """Make the run's model the newest version of the registered model `name`.

    Args:
        run: the run that logged the model.
        model_uri: what `Run.log_model` returned.
        name: made when it is missing.
        alias: moved to this version when given.

    Returns:
        `models:/name@alias`, or `models:/name/version` without an alias.
    """
    client = _client(run.tracking_uri)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model = client.get_logged_model(model_uri.removeprefix("models:/"))
    # The place of its files, not `model_uri`: that would be looked up in MLflow's global store.
    source = model.artifact_location
    version = client.create_model_version(name, source, run_id=run.run_id, model_id=model.model_id).version
    if alias is None:
        return f"models:/{name}/{version}"
    client.set_registered_model_alias(name, alias, version)
    return f"models:/{name}@{alias}"


@_patient
def register_model_of(run: Run, *, name: str, alias: str | None) -> str:
    """Register the model that a run has logged, as `register_model`; a version that it has already is taken.

    Raises:
        ValueError: the run has logged no model.
    """
    client = _client(run.tracking_uri)
    outputs = client.get_run(run.run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise ValueError(f"run {run.run_id} has logged no model: it cannot be registered as {name}")
    known = [each for each in _versions(client, name) if each.run_id == run.run_id]
    if not known:
        return register_model(run, f"models:/{outputs.model_outputs[-1].model_id}", name=name, alias=alias)
    if alias is None:
        return f"models:/{name}/{known[0].version}"
    client.set_registered_model_alias(name, alias, known[0].version)
    return f"models:/{name}@{alias}"


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name='{name}'"))


def fetch_weights(uri: str, *, tracking_uri: str) -> Path:
    """Bring the weights file that `uri` means to this machine.

    Args:
        uri: `runs:/<id>`, `runs:/<id>/<artifact>`, `models:/<name>@<alias>`, `models:/<name>/<version>` or
            `models:/m-<id>`.
        tracking_uri: the store, as `resolve_tracking_uri` gives it.

    Returns:
        The path of the one safetensors file there.

    Raises:
        ValueError: the store has nothing by this address, or not one weights file.
    """
    check_answers(tracking_uri)
    try:
        artifact_uri = _patient(_artifact_uri)(_client(tracking_uri), uri)
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri, tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise ValueError(
            f"{uri} is not in the tracking store {tracking_uri} ({error}): check the id, name, alias or version, "
            f"and that MLFLOW_TRACKING_URI names the store it was written to"
        ) from error
    weights = [found] if found.is_file() else sorted(found.rglob("*.safetensors"))
    if len(weights) != 1 or weights[0].suffix != ".safetensors":
        names = ", ".join(path.name for path in weights) or "none"
        raise ValueError(f"{uri} must hold one weights file (*.safetensors), found {names}: name a run's file or model")
    return weights[0]


def git_commit(folder: Path) -> str | None:
    """Say which commit the code in `folder` is, `-dirty` when tracked files were changed; none when nobody knows.

    Where there is no `.git`, T3D_GIT_COMMIT says it of a submitted folder, `.commit` of an image (cluster/Dockerfile).
    """
    if commit := os.environ.get("T3D_GIT_COMMIT"):
        return commit
    if (of_image := folder / ".commit").is_file():
        return of_image.read_text().strip() or None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit_tag() -> dict[str, str]:
    """The tag that names the commit of this code, when it is known."""
    commit = git_commit(Path(__file__).parents[2])
    return {} if commit is None else {"mlflow.source.git.commit": commit}


@functools.cache  # a server that has answered once is waited for when it is away later
def check_answers(tracking_uri: str) -> None:
    """Refuse a wrong address within seconds, where MLflow's own tries would take four minutes.

    Raises:
        ValueError: no server answers there, or not to who calls it by that name.
    """
    deadline = time.monotonic() + _SECONDS_TO_ANSWER
    while tracking_uri.startswith(_SERVER):
        try:
            answer = http_request(
                get_default_host_creds(tracking_uri),
                "/api/2.0/mlflow/experiments/search",
                "GET",
                max_retries=0,
                timeout=_CONNECT_AND_READ_SECONDS[0],
                params={"max_results": 1},
            )
            if answer.status_code == 403 and "Host header" in answer.text:
                host = urlsplit(tracking_uri).netloc
                raise ValueError(
                    f"the MLflow server at {tracking_uri} refuses to be called {host}: add that to its --allowed-hosts "
                    "(MLFLOW_SERVER_ALLOWED_HOSTS), or call it by a name that is there"
                )
            return
        except MlflowException as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"no MLflow server answers at {tracking_uri} ({_reason(error)}): start it, or name another store "
                    "with MLFLOW_TRACKING_URI or --tracking.uri"
                ) from error
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _reason(error: Exception) -> str:
    """What lies at the bottom of an error of the network; the text of others."""
    *_, first = _causes(error)
    return str(first if isinstance(first, OSError) else error)


def _post_points(run: Run, points: Sequence[Point]) -> None:
    """Say once and at once what `MlflowClient.log_batch` would try for minutes with growing pauses."""
    metrics = [
        # JSON's numbers have no NaN: MLflow takes the words that `dumps` writes, as strings.
        {"key": name, "value": value if math.isfinite(value) else json.dumps(value), "timestamp": time_ms, "step": step}
        for name, value, time_ms, step in points
    ]
    response = http_request(
        get_default_host_creds(run.tracking_uri),
        "/api/2.0/mlflow/runs/log-batch",
        "POST",
        json={"run_id": run.run_id, "metrics": metrics},
        max_retries=0,
        timeout=_CONNECT_AND_READ_SECONDS,
        raise_on_status=False,
    )
    verify_rest_response(response, "/api/2.0/mlflow/runs/log-batch")


@_patient
def _client(tracking_uri: str) -> MlflowClient:
    """Open the store and its model registry, silently; MLflow itself keeps the connections between calls."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").addFilter(_has_no_traceback)
    with _alone_in(tracking_uri) if tracking_uri.startswith(_SQLITE) else nullcontext():
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    """MLflow prints the traceback of what it raises as well."""
    return record.exc_info is None


@contextmanager
def _alone_in(sqlite_uri: str) -> Iterator[None]:
    """Let one process at a time open a sqlite store: MLflow fails when two make the tables of a new one together."""
    lock_path = Path(sqlite_uri.removeprefix(_SQLITE) + ".lock")
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _continue_run(run: Run, *, tags: Mapping[str, str]) -> Run:
    client = _client(run.tracking_uri)
    try:
        _patient(client.update_run)(run.run_id, status="RUNNING")
    except MlflowException as error:
        raise ValueError(
            f"run {run.run_id} cannot go on in the tracking store {run.tracking_uri} ({error}): restore it there, "
            f"or start again under a new --name"
        ) from error
    if REASON in _patient(client.get_run)(run.run_id).data.tags:
        _patient(client.delete_tag)(run.run_id, REASON)
    run.set_tags(tags)
    return run


def _experiment_id(client: MlflowClient, name: str) -> str:
    """Find the experiment or make it; of several processes that make it at once, one wins and all find it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise error
    return found.experiment_id


def _artifact_location(tracking_uri: str) -> str | None:
    """Place files beside a sqlite store (MLflow would take the working folder); a server has its own place: none."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    return (Path(tracking_uri.removeprefix(_SQLITE)).parent / "mlruns").as_uri()


def _signature(card: WeightsCard, weights_path: Path) -> ModelSignature:
    """Clips as the card says, uint8 (B, T, H, W, C), give probabilities, float32 (B, K)."""
    if not card.class_names:
        raise ValueError(f"weights file {weights_path} has no classes, so it is no classifier: log it as an artifact")
    clip_shape = (-1, card.num_frames, card.crop_size, card.crop_size, 3)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), clip_shape)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(card.class_names)))]),
    )


def _save_model(weights_path: Path, folder: Path, *, description: Model, signature: ModelSignature) -> None:
    with warnings.catch_warnings():
        # It asks for an input example: one clip is 5 MB of uint8 and far more as JSON; the signature says as much.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("logged_model.py")),
            artifacts={"weights": str(weights_path)},
            code_paths=[str(Path(t3d_core.__file__).parent)],
            signature=signature,
            pip_requirements=list(MODEL_REQUIREMENTS),
            mlflow_model=description,
        )


def _artifact_uri(client: MlflowClient, uri: str) -> str:
    """Look up where the files behind `uri` lie; MLflow would look in its global store for some forms."""
    kind, _, name = uri.partition(":/")
    if kind == "runs":
        return _files_of_run(client, name)
    if "@" in name:
        name, alias = name.split("@", 1)
        return client.get_model_version_download_uri(name, client.get_model_version_by_alias(name, alias).version)
    if "/" in name:
        return client.get_model_version_download_uri(*name.split("/", 1))
    return client.get_logged_model(name).artifact_location


def _files_of_run(client: MlflowClient, name: str) -> str:
    """Take `<id>` and `<id>/model` for the model that the run logged last, where it logged one."""
    run_id, _, artifact_path = name.partition("/")
    run = client.get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    if logged and artifact_path in ("", MODEL_NAME):
        models = [client.get_logged_model(output.model_id) for output in logged]
        return max(models, key=lambda model: model.creation_timestamp).artifact_location
    return f"{run.info.artifact_uri}/{artifact_path}"
