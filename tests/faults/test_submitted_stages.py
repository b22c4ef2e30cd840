"""Every stage by `ray job submit`, on shared storage that T3D_HOME names; one is stopped and submitted again."""

import json
import os
import subprocess

import pytest
from mlflow import MlflowClient

from tests.faults.ray_nodes import Nodes
from tests.faults.test_many_nodes import stages, write_recipes
from tests.faults.training_faults import Job, all_pids, assert_ended_as, title_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


def ray_job(nodes, *arguments):
    """The exit code and the output of `ray job ...`."""
    command = ["ray", "job", *arguments]
    environment = os.environ | nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_every_stage_is_submitted_from_anywhere_and_writes_to_the_shared_storage(tmp_path):
    """`ray job submit -- python jobs/STAGE.py` works literally, because the head was started in the code's folder."""
    home = tmp_path / "shared"
    home.mkdir()
    write_recipes(home)
    with Nodes() as nodes:
        nodes.environment["T3D_HOME"] = str(home)
        nodes.start_head(num_cpus=2)
        for stage, arguments in stages(num_workers=1).items():
            given = [str(home / each) if each.endswith(".yaml") else each for each in arguments]
            code, shown = ray_job(nodes, "submit", "--", "python", f"jobs/{stage}.py", *given)
            assert code == 0, f"{stage}: {shown[-3000:]}"
        code, shown = ray_job(nodes, "submit", "--", "python", "jobs/train.py", "--data.shards", "absent")
        assert code == 1
        assert "absent holds no prepared shards" in shown.strip().splitlines()[-1]
        assert_no_secret(nodes)
    assert (home / "runs/transfer/student.safetensors").is_file()
    assert json.loads((home / "tested/metrics.json").read_text())
    runs = MlflowClient(f"sqlite:///{home}/mlflow.db").search_runs(["1"])
    assert {run.data.tags["stage"] for run in runs} == {"prepare", "transfer", "train", "evaluate", "search"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def assert_no_secret(nodes):
    """The token is on no command line and in no log of Ray's."""
    token = nodes.token.read_text()
    assert not [title for pid in all_pids() if token in (title := title_of(pid))]
    logs = [path for path in nodes.token.parent.rglob("logs/**/*") if path.is_file()]
    assert len(logs) > 10
    assert not [path for path in logs if token in path.read_text(errors="replace")]
    assert nodes.token.stat().st_mode & 0o777 == 0o600


def test_a_job_that_is_stopped_resumes_when_it_is_submitted_again(tiny_shards, untouched, tmp_path):
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20")
    with Nodes() as nodes, Job(tmp_path, tiny_shards, *arguments) as job:
        job.environment |= nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
        entrypoint = job.command
        nodes.start_head(num_cpus=2)
        job.command = ["ray", "job", "submit", "--submission-id", "first", "--", *entrypoint]
        job.start()
        job.wait_for_step(70)
        assert ray_job(nodes, "stop", "first")[0] == 0
        job.driver.wait(timeout=60)  # with status 0: the CLI only prints that the job was stopped
        assert "stopped" in ray_job(nodes, "status", "first")[1].lower()
        assert job.tracked()[0] == "KILLED"
        step = job.step()
        job.command = ["ray", "job", "submit", "--submission-id", "second", "--", *entrypoint]
        assert job.run(seconds=400) == 0, job.last_line()
        print(f"stopped after step {step}, submitted again")
        assert_ended_as(job, untouched)
