"""A training job is killed, and ends with the weights of an undisturbed one: `pytest -m faults`.

The comparison is bit for bit: every step once, with the same loss (so the same clips), and equal weights.
"""

import os
import random
import signal
import time

import pytest

from pipelines.training.checkpoints import find_damage
from tests.faults.random_kills import Killer
from tests.faults.training_faults import Job, assert_ended_as, below, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
NUM_STEPS, EVERY = 290, 20


@pytest.fixture
def job(tiny_shards, tmp_path):
    with Job(tmp_path, tiny_shards, "--epochs", "80", "--checkpoint.every_steps", str(EVERY)) as job:
        yield job


def wait_for_random_moment(job, rng):
    """Wait until some more steps are done, and for a random part of the next one."""
    job.wait_for_step(job.step() + rng.randint(1, 80))
    time.sleep(rng.uniform(0, 0.1))


def test_a_train_worker_killed_at_random_moments_changes_nothing(job, untouched):
    rng = random.Random(0)
    job.start()
    killed = []
    for _ in range(2):
        wait_for_random_moment(job, rng)
        (worker,) = job.workers()
        killed.append(job.step())
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda worker=worker: job.workers() and worker not in job.workers(), seconds=120)
    assert job.driver.wait(timeout=300) == 0, job.last_line()
    print(f"train worker killed after steps {killed} of {NUM_STEPS}")
    assert_ended_as(job, untouched)


def test_a_driver_killed_at_random_moments_and_started_again_changes_nothing(job, untouched):
    rng = random.Random(1)
    killed = []
    for seconds in (rng.uniform(1, 15), None, None):  # once while it is still starting
        job.start()
        if seconds is not None:
            time.sleep(seconds)
        else:
            wait_for_random_moment(job, rng)
        workers = job.workers()
        killed.append(job.step())
        job.kill_driver()  # the next start follows at once
    assert job.run() == 0, job.last_line()
    print(f"driver killed after steps {killed} of {NUM_STEPS}")
    assert not below(workers), "no worker outlived its driver"
    assert_ended_as(job, untouched)


def test_ctrl_c_ends_a_run_as_interrupted_and_started_again_it_resumes(job, untouched):
    job.start()
    job.wait_for_step(EVERY + 5)
    job.driver.send_signal(signal.SIGINT)
    assert job.driver.wait(timeout=120) == 130, job.last_line()
    print(f"interrupted after step {job.step()}: {job.last_line()}")
    assert job.last_line().endswith("error: interrupted")
    assert job.tracked()[0] == "KILLED"
    assert job.run() == 0, job.last_line()
    assert_ended_as(job, untouched)


def test_random_kills_of_all_kinds_change_nothing(job, untouched, tmp_path):
    kills = Killer(job, tmp_path / "kills.jsonl", seed=0).run(num_kills=3, num_steps=NUM_STEPS)
    print("killed:", ", ".join(f"{kill['victim']} after step {kill['step']}" for kill in kills))
    assert len(kills) == 3
    assert_ended_as(job, untouched)


def test_a_damaged_newest_checkpoint_is_passed_over_and_leftovers_are_swept(job, untouched):
    job.start()
    job.wait_for_step(3 * EVERY + 5)
    job.kill_driver()
    assert len(job.checkpoints()) == 2
    newest, before = sorted(job.folder.glob("checkpoint_????????"), reverse=True)
    with (newest / "training_state.pt").open("r+b") as file:
        file.seek(1000)
        flipped = bytes(255 - byte for byte in file.read(64))
        file.seek(1000)
        file.write(flipped)
    orphan = job.folder / "checkpoint_00009999.partial"
    orphan.mkdir()
    (orphan / "training_state.pt").write_bytes(b"half")
    assert find_damage(newest) == "training_state.pt not as written"
    last_step = job.step()
    job.start()
    (warning,) = wait_for(lambda: [line for line in job.lines() if "is damaged" in line], seconds=120)
    print(warning)
    assert f"{newest} is damaged (training_state.pt not as written): resuming from the one before" in warning
    job.wait_for_step(last_step + 1)
    assert not orphan.exists()
    assert job.driver.wait(timeout=300) == 0, job.last_line()
    print(f"resumed from {before.name} instead of {newest.name}; last step before: {last_step}")
    assert_ended_as(job, untouched)


def test_a_second_job_of_the_same_name_is_refused_and_the_first_continues(job, untouched):
    first = job.start()
    job.wait_for_step(1)
    (worker,) = job.workers()
    os.kill(worker, signal.SIGSTOP)  # it is at work for as long as the second one takes to start
    assert job.run() == 1
    os.kill(worker, signal.SIGCONT)
    (refusal,) = [line for line in job.lines() if "error: " in line]  # behind the first one's bar
    print(refusal)
    assert f"error: run 'trial' in {job.folder.parent} is being trained by process {first.pid} on " in refusal
    assert first.wait(timeout=300) == 0, job.last_line()
    assert_ended_as(job, untouched)
