import pytest

from tests.pipelines.tracking.new_runs import open_run, write_weights


@pytest.fixture
def run(tracking_uri):
    return open_run(tracking_uri)


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", class_names=("a", "b", "c"))
