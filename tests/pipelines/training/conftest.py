import shutil

import pytest

from pipelines.train.job import run_train
from pipelines.transfer.job import run_transfer
from tests.pipelines.training.small_runs import settings_in, train_config, transfer_config


@pytest.fixture
def settings(synthetic_shards, tracking_uri, tmp_path):
    """What all runs of a test share; nothing is written where the tests stand."""
    return settings_in(tmp_path)


@pytest.fixture(scope="session")
def shared_settings(empty_store, tmp_path_factory):
    """The settings of runs that are made once and only read afterwards."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(empty_store, folder / "mlflow.db")
    return settings_in(folder)


@pytest.fixture(scope="session")
def trained(shared_settings, synthetic_shards):
    """The folder of a training run of one epoch."""
    run_train(train_config(shared_settings, synthetic_shards, name="mine"))
    return shared_settings["storage"] / "mine"


@pytest.fixture(scope="session")
def taught(shared_settings, synthetic_shards):
    """The folder of a transfer of one epoch."""
    run_transfer(transfer_config(shared_settings, synthetic_shards, name="teach"))
    return shared_settings["storage"] / "teach"
