"""Weights are stored as models, registered, and fetched again."""

import tempfile
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from pipelines.tracking.runs import Run
from pipelines.tracking.saved_model import save_model, signature_of
from pipelines.tracking.store import check_answers, check_is_there, open_client, patient
from t3d_core.errors import UserError
from t3d_core.training.weights_card import read_card

MODEL_NAME = "model"


@patient
def log_model(run: Run, weights_path: Path) -> str:
    """Store the weights file as a model that MLflow can load and serve, belonging to `run`.

    Args:
        run: the run that trained it.
        weights_path: a weights file with a head; its card gives the model's signature.

    Returns:
        The model's address, `models:/m-...`.

    Raises:
        UserError: the file cannot be read or its network has no head.
    """
    signature = signature_of(read_card(weights_path), weights_path)
    client = open_client(run.tracking_uri)
    experiment_id = client.get_run(run.run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, name=MODEL_NAME, source_run_id=run.run_id)
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run.run_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_model(weights_path, Path(folder) / MODEL_NAME, description=description, signature=signature)
        client.log_model_artifacts(logged.model_id, str(Path(folder) / MODEL_NAME))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_uri


@patient
def register_model(run: Run, model_uri: str, *, name: str, alias: str | None) -> str:
    """Make the run's model the newest version of the registered model `name`.

    Args:
        run: the run that logged the model.
        model_uri: what `log_model` returned.
        name: created when it is missing.
        alias: moved to this version when given.

    Returns:
        `models:/name@alias`, or `models:/name/version` without an alias.
    """
    client = open_client(run.tracking_uri)
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


@patient
def register_model_of(run: Run, *, name: str, alias: str | None) -> str:
    """Register the model that a run has logged, as `register_model`; an existing version of it is used.

    Raises:
        UserError: the run has logged no model.
    """
    client = open_client(run.tracking_uri)
    outputs = client.get_run(run.run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise UserError(f"run {run.run_id} has logged no model: it cannot be registered as {name}")
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
    """Download the weights file that `uri` names.

    Args:
        uri: `runs:/<id>`, `runs:/<id>/<artifact>`, `models:/<name>@<alias>`, `models:/<name>/<version>` or
            `models:/m-<id>`.
        tracking_uri: the store, as `resolve_tracking_uri` gives it.

    Returns:
        The path of the one safetensors file there.

    Raises:
        UserError: there is no such store, it has nothing at this address, or not exactly one weights file.
    """
    check_answers(tracking_uri)
    check_is_there(tracking_uri)
    try:
        artifact_uri = patient(_artifact_uri)(open_client(tracking_uri), uri)
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri, tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{uri} is not in the tracking store {tracking_uri} ({error}): check the id, name, alias or version, "
            f"and that MLFLOW_TRACKING_URI names the store it was written to"
        ) from error
    weights = [found] if found.is_file() else sorted(found.rglob("*.safetensors"))
    if len(weights) != 1 or weights[0].suffix != ".safetensors":
        names = ", ".join(path.name for path in weights) or "none"
        raise UserError(
            f"{uri} must hold one weights file (*.safetensors), found {names}: name a file or model of a run"
        )
    return weights[0]


def _artifact_uri(client: MlflowClient, uri: str) -> str:
    """Look up where the files of `uri` are; MLflow would use its global store for some forms."""
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
    """Read `<id>` and `<id>/model` as the model that the run logged last, if there is one."""
    run_id, _, artifact_path = name.partition("/")
    run = client.get_run(run_id)
    logged = run.outputs.model_outputs if run.outputs else []
    if logged and artifact_path in ("", MODEL_NAME):
        models = [client.get_logged_model(output.model_id) for output in logged]
        return max(models, key=lambda model: model.creation_timestamp).artifact_location
    return f"{run.info.artifact_uri}/{artifact_path}"
