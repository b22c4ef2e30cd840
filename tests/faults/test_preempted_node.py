"""A node is preempted with a notice, as a spot instance is, and no training step is lost: `pytest -m faults`."""

import pytest

from tests.faults.ray_nodes import Nodes
from tests.faults.training_faults import Job, assert_every_step_once, wait_for

TRAINER = '{"trainer": 1}'
NUM_STEPS = 725
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_notice_of_preemption_makes_a_checkpoint_from_which_the_next_node_resumes(tiny_shards, tmp_path):
    arguments = ["--scaling.resources_per_worker", '{"CPU": 1, "trainer": 1}', "--failure.max_failures", "0"]
    # No regular checkpoint comes before the end, and the first failure would end the run.
    arguments += ["--epochs", "200", "--checkpoint.every_steps", "100000"]
    with Nodes() as nodes, Job(tmp_path, tiny_shards, *arguments) as job:
        job.environment |= nodes.environment | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "12"}
        nodes.start_head(num_cpus=2)
        first = nodes.add(num_cpus=1, resources=TRAINER)
        job.start()
        job.wait_for_step(50)
        announced = job.step()
        first.announce_end()
        wait_for(lambda: job.checkpoints() or not job.is_running(), seconds=60)
        [kept] = job.checkpoints()
        first.process.wait(timeout=120)
        last = job.step()
        nodes.add(num_cpus=1, resources=TRAINER)
        assert job.driver.wait(timeout=600) == 0, job.last_line()
        print(f"announced after step {announced}, checkpoint of step {kept}, node gone after step {last}")
        assert announced <= kept < NUM_STEPS
        assert_every_step_once(job, NUM_STEPS)
