import shutil

import pytest
from mlflow import MlflowClient

from tests.pipelines.tracking.new_runs import open_run, write_weights


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated store without runs, made once: each test works on a copy."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def run(tracking_uri):
    return open_run(tracking_uri)


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", class_names=("a", "b", "c"))
