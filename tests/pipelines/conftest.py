"""A store of MLflow for each test that records runs."""

import shutil

import pytest


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store without runs, made once: MLflow takes seconds to make the tables of a new one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(empty_store, tmp_path):
    """The address of a copy in the folder of the test."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
