"""The head vanishes while a submitted job trains; submitted again to a new head, it resumes: `pytest -m faults`."""

import shutil
import subprocess
import time

import pytest

from tests.faults.ray_nodes import Nodes, free_ports
from tests.faults.training_faults import Job, assert_ended_as

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_job_whose_head_was_killed_resumes_when_it_is_submitted_again(tiny_shards, untouched, tmp_path):
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20")
    with Nodes() as nodes, Job(tmp_path, tiny_shards, *arguments) as job:
        job.environment |= nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
        job.command = ["ray", "job", "submit", "--", *job.command]
        head = nodes.start_head(num_cpus=2)
        job.start()
        job.wait_for_step(70)
        step = job.step()
        head.kill()
        assert job.driver.wait(timeout=120) != 0, "the submitting command reports the failure"
        nodes.start_head(num_cpus=2)
        assert job.run(seconds=400) == 0, job.last_line()
        print(f"head killed after step {step}, the same job submitted to a new one")
        assert_ended_as(job, untouched)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_nodes_outlive_a_head_that_keeps_its_state_in_redis(tiny_shards, untouched, tmp_path):
    """The head is killed and started again: nodes are the same processes, and the job resumes when submitted again."""
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20")
    [port] = free_ports(1)
    command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", ""]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path)
    state = {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}", "RAY_external_storage_namespace": "t3d"}
    try:
        with Nodes() as nodes, Job(tmp_path / "job", tiny_shards, *arguments) as job:
            job.environment |= nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
            job.command = ["ray", "job", "submit", "--", *job.command]
            head = nodes.start_head(num_cpus=0, pool="head", redis=state)
            workers = [nodes.add(num_cpus=1, pool=pool) for pool in ("decode", "train")]
            job.start()
            job.wait_for_step(70)
            step = job.step()
            head.kill()
            assert job.driver.wait(timeout=120) != 0, "the submitting command reports the failure"
            began = time.monotonic()
            nodes.start_head(num_cpus=0, pool="head", redis=state)
            seconds = time.monotonic() - began
            assert job.run(seconds=400) == 0, job.last_line()
            print(f"head killed after step {step}; a new one answered {seconds:.0f} s after it was started")
            assert [worker.process.poll() for worker in workers] == [None, None]
            assert_ended_as(job, untouched)
    finally:
        redis.kill()
        redis.wait()
