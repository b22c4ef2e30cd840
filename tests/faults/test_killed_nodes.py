"""A node with a train worker vanishes, and the run continues without it or with the next one: `pytest -m faults`."""

import time

import pytest

from tests.faults.ray_nodes import Nodes
from tests.faults.training_faults import Job, assert_every_step_once

TRAINER = '{"trainer": 1}'
NUM_STEPS = 1450
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize("num_workers", ["[1, 2]", "2"])
def test_a_run_survives_the_loss_of_a_node(num_workers, tiny_shards, tmp_path):
    """An elastic run continues with the worker that is left; a fixed one waits for the next node."""
    # Workers train on nodes of their own; the head decodes.
    arguments = ["--scaling.num_workers", num_workers, "--scaling.resources_per_worker", '{"CPU": 1, "trainer": 1}']
    arguments += ["--epochs", "400", "--checkpoint.every_steps", "20"]
    with Nodes() as nodes, Job(tmp_path, tiny_shards, *arguments) as job:
        job.environment |= nodes.environment | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "12"}
        nodes.start_head(num_cpus=2)
        first, second = (nodes.add(num_cpus=1, resources=TRAINER) for _ in range(2))
        job.start()
        job.wait_for_step(50)
        assert len(first.train_workers()) == len(second.train_workers()) == 1
        step, began = job.step(), time.monotonic()
        second.kill()
        if num_workers == "[1, 2]":
            job.wait_for_step(step + 30)
            print(f"node killed after step {step}, on with one worker {time.monotonic() - began:.0f} s later")
        nodes.add(num_cpus=1, resources=TRAINER)
        assert job.driver.wait(timeout=600) == 0, job.last_line()
        print(f"node killed after step {step}, another added; ended {time.monotonic() - began:.0f} s later")
        assert_every_step_once(job, NUM_STEPS)
