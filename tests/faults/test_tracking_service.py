"""A run is tracked by MLflow's server on PostgreSQL and S3, as in cluster/mlflow: `pytest -m faults`."""

import pytest
from mlflow import MlflowClient

from tests.faults import tracking_service
from tests.faults.tracking_service import TrackingService
from tests.faults.training_faults import Job, assert_every_step_once, below, title_of

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tracking_service.missing() is not None, reason=str(tracking_service.missing())),
]


@pytest.fixture(scope="module")
def service():
    with TrackingService() as service:
        yield service


def test_a_run_that_is_killed_resumes_in_postgres_and_its_files_are_in_the_bucket(service, tiny_shards, tmp_path):
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20", "--tracking.uri", service.uri)
    with Job(tmp_path, tiny_shards, *arguments) as job:
        job.tracking_uri = service.uri
        job.start()
        job.wait_for_step(70)
        job.kill_driver()
        service.stop_server()  # the server restarts too, before the job does
        service.start_server()
        assert job.run() == 0, job.last_line()
        assert_every_step_once(job, 290)
        run = job.folder.name
    (found,) = MlflowClient(service.uri).search_runs(["1"])
    assert (found.info.run_name, found.info.status) == (run, "FINISHED")
    keys = service.artifacts()
    assert any(key.endswith("recipe.yaml") for key in keys)
    assert any("/models/" in key for key in keys)
    recipe = MlflowClient(service.uri).download_artifacts(found.info.run_id, "recipe.yaml", str(tmp_path))
    assert "epochs: 80" in open(recipe).read()  # through the server, because the client has no key of the bucket


def test_a_request_under_another_host_name_is_refused(service):
    assert service.status("localhost:5000") == 200  # through `kubectl port-forward`
    assert service.status("mlflow.t3d.svc.cluster.local:5000") == 200
    assert service.status("attacker.example") == 403


def test_the_passwords_are_in_no_command_line_and_no_log(service):
    titles = [title_of(pid) for pid in below([service.server.pid])]
    assert titles
    assert not [title for title in titles if service.password in title]
    assert service.password not in service.log.read_text()
