"""The head vanishes while a submitted job trains; submitted again to a new one, it goes on: `pytest -m faults`."""

import pytest

from tests.faults.ray_nodes import Nodes
from tests.faults.training_faults import Job, assert_ended_as

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_job_whose_head_was_killed_goes_on_when_it_is_submitted_again(tiny_shards, untouched, tmp_path):
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20")
    with Nodes() as nodes, Job(tmp_path, tiny_shards, *arguments) as job:
        job.environment |= nodes.environment | {"RAY_ADDRESS": nodes.dashboard}
        job.command = ["ray", "job", "submit", "--", *job.command]
        head = nodes.start_head(num_cpus=2)
        job.start()
        job.wait_for_step(70)
        step = job.step()
        head.kill()
        assert job.driver.wait(timeout=120) != 0, "whoever waits for the job is told"
        nodes.start_head(num_cpus=2)
        assert job.run(seconds=400) == 0, job.last_line()
        print(f"head killed after step {step}, the same job submitted to a new one")
        assert_ended_as(job, untouched)
