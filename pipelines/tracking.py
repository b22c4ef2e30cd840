"""What a run did goes into an MLflow store, and weights come back out of it.

This module alone imports mlflow. It works through `MlflowClient` with the store's address in hand, never through
MLflow's global state: driver, workers and several runs of one process cannot get into each other's way.
"""

import fcntl
import json
import logging
import os
import shlex
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

import t3d_core
from t3d_core.training.weights_card import WeightsCard, read_card

MODEL_NAME = "model"
# What `logged_model.py` needs; a test holds the list against pyproject.toml.
MODEL_REQUIREMENTS = ("torch>=2.14", "torchvision>=0.29", "numpy>=2.4", "safetensors>=0.8", "mlflow>=3.17")
_LOG = logging.getLogger(__name__)
_SQLITE = "sqlite:///"
_MAX_PARAM_LENGTH, _MAX_DIGEST_LENGTH = 6000, 36  # limits of MLflow's stores


def resolve_tracking_uri(uri: str | None, *, base: Path) -> str:
    """Settle which store a run writes to, so that every worker finds the same one from its own folder.

    Args:
        uri: the configured address; none means MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.
        base: the folder that relative paths start from.

    Returns:
        The address, with an absolute path when it is a sqlite file or a folder; a server's address as it came.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{base.absolute() / uri.removeprefix(_SQLITE)}"
    if uri.startswith("file:///") or (":" in uri and not uri.startswith("file:")):
        return uri
    return (base.absolute() / uri.removeprefix("file:")).as_uri()


@dataclass(frozen=True)
class Run:
    """One MLflow run: small enough to send to workers, opened where it is used.

    Attributes:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        run_id: MLflow's id of the run.
    """

    tracking_uri: str
    run_id: str

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write all `metrics` of one step in one call."""
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        _client(self.tracking_uri).log_batch(self.run_id, metrics=points)

    def log_params(self, flat: Mapping[str, object]) -> None:
        """Write parameters by dotted name; a long value is cut at the store's 6000 characters.

        Raises:
            ValueError: a continued run has another value for one of them.
        """
        params = [Param(name, str(value)[:_MAX_PARAM_LENGTH]) for name, value in flat.items()]
        try:
            _client(self.tracking_uri).log_batch(self.run_id, params=params)
        except MlflowException as error:
            raise ValueError(f"run {self.run_id} does not take these parameters: {error}") from error

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write or overwrite tags."""
        _client(self.tracking_uri).log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_text(self, text: str, artifact_file: str) -> None:
        """Write `text` as the run's file `artifact_file`."""
        _client(self.tracking_uri).log_text(self.run_id, text, artifact_file)

    def log_artifact(self, path: Path, artifact_path: str | None = None) -> None:
        """Copy the file or folder at `path` to the run, into its folder `artifact_path`."""
        _client(self.tracking_uri).log_artifact(self.run_id, str(path), artifact_path)

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

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Close the run; `start_run` with its id opens it again."""
        _client(self.tracking_uri).set_terminated(self.run_id, status)

    def close_as_killed(self) -> None:
        """Close a run whose process is gone; a store that has been moved away is no reason to stop."""
        try:
            self.finish("KILLED")
        except MlflowException as error:
            _LOG.warning("The interrupted run %s in %s cannot be closed: %s", self.run_id, self.tracking_uri, error)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the run as what happened in the block: FINISHED, FAILED, or KILLED from the keyboard."""
        if kind is None:
            self.finish()
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    def describe(self) -> str:
        """Say in one line how a person gets to see this run."""
        if self.tracking_uri.startswith(("http://", "https://")):
            experiment_id = _client(self.tracking_uri).get_run(self.run_id).info.experiment_id
            return f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {shlex.quote(self.tracking_uri)}  # run {self.run_id}"


def start_run(*, tracking_uri: str, experiment: str, run_name: str, run_id: str | None, tags: Mapping[str, str]) -> Run:
    """Open a new run, or go on with an old one.

    Args:
        tracking_uri: the store, as `resolve_tracking_uri` gives it.
        experiment: its name; made when it is missing.
        run_name: name of a new run.
        run_id: the run to go on with; none for a new one.
        tags: such as `mlflow.source.git.commit`, `mlflow.source.name`, `mlflow.user`.

    Raises:
        ValueError: the store cannot be opened, or the run or the experiment is gone from it.
    """
    if run_id is not None:
        return _continue_run(Run(tracking_uri, run_id), tags=tags)
    try:
        client = _client(tracking_uri)
        experiment_id = _experiment_id(client, experiment)
        return Run(tracking_uri, client.create_run(experiment_id, tags=dict(tags), run_name=run_name).info.run_id)
    except MlflowException as error:
        raise ValueError(f"no run can be started in the tracking store {tracking_uri}: {error}") from error


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
    try:
        artifact_uri = _artifact_uri(_client(tracking_uri), uri)
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

    A submitted job has no `.git`: there, T3D_GIT_COMMIT says it.
    """
    if commit := os.environ.get("T3D_GIT_COMMIT"):
        return commit
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit_tag() -> dict[str, str]:
    """The tag that names the commit of this code, when it is known."""
    commit = git_commit(Path(__file__).parent)
    return {} if commit is None else {"mlflow.source.git.commit": commit}


def _client(tracking_uri: str) -> MlflowClient:
    """Open the store and its model registry, silently; MLflow itself keeps the connections between calls."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with _alone_in(tracking_uri) if tracking_uri.startswith(_SQLITE) else nullcontext():
        return MlflowClient(tracking_uri, registry_uri=tracking_uri)


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
        client.update_run(run.run_id, status="RUNNING")
    except MlflowException as error:
        raise ValueError(
            f"run {run.run_id} cannot go on in the tracking store {run.tracking_uri} ({error}): restore it there, "
            f"or start again under a new --name"
        ) from error
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
