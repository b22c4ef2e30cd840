"""One of several nodes on separate hosts (network namespaces) is disconnected or slow: `pytest -m faults`."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.faults.hosts import Hosts
from tests.faults.ray_nodes import Node, Nodes
from tests.faults.training_faults import Job, assert_every_step_once, below

NUM_STEPS = 725
SETTINGS = ["--epochs", "200", "--checkpoint.every_steps", "20", "--failure.max_failures", "5"]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]


@pytest.mark.parametrize("seconds", [5, 60])
def test_a_run_survives_that_its_train_node_is_disconnected(seconds, tiny_shards, tmp_path):
    """The disconnected worker may still train; its steps and those of its successor must not both be in the result."""
    with Hosts() as hosts, Nodes(address=hosts.here) as nodes, Job(tmp_path, tiny_shards, *SETTINGS) as job:
        job.environment |= nodes.environment | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
        nodes.start_head(num_cpus=0, pool="head")
        nodes.add(num_cpus=1, pool="decode", host=hosts.add())
        trains = hosts.add()
        nodes.add(num_cpus=1, pool="train", host=trains)
        job.start()
        job.wait_for_step(50)
        step, began = job.step(), time.monotonic()
        trains.disconnect()
        time.sleep(seconds)
        trains.connect()
        reached = job.step()
        if seconds > 30:  # Ray has given the node up
            nodes.add(num_cpus=1, pool="train", host=hosts.add())
        assert job.driver.wait(timeout=900) == 0, job.last_line()
        print(
            f"train node disconnected for {seconds} s after step {step}; at step {reached} when connected again; ended "
            f"{time.monotonic() - began:.0f} s after it was disconnected"
        )
        assert_every_step_once(job, NUM_STEPS)


def test_a_slow_node_makes_a_run_slow_and_nothing_else(tiny_shards, tmp_path):
    """One of two train nodes runs for a fifth of the time."""
    with Hosts() as hosts, Nodes(address=hosts.here) as nodes:
        nodes.start_head(num_cpus=0, pool="head")
        nodes.add(num_cpus=1, pool="decode", host=hosts.add())
        fast, slow = (nodes.add(num_cpus=1, pool="train", host=hosts.add()) for _ in range(2))
        arguments = [*SETTINGS[2:], "--epochs", "40", "--scaling.num_workers", "2", "--failure.max_failures", "0"]
        with Job(tmp_path, tiny_shards, *arguments) as job:
            job.environment |= nodes.environment
            job.start()
            job.wait_for_step(20)
            assert fast.train_workers()
            assert slow.train_workers()
            usual = pace(job, 50)
            with slowed(slow, share=0.2):
                slowly = pace(job, 80)
            assert job.driver.wait(timeout=900) == 0, job.last_line()
            print(f"steps a second: {usual:.1f}; with a node that runs for a fifth of the time: {slowly:.1f}")
            assert slowly < usual
            assert_every_step_once(job, 145)


def pace(job: Job, until: int) -> float:
    """Steps a second from now to step `until`."""
    began, first = time.monotonic(), job.step()
    job.wait_for_step(until)
    return (job.step() - first) / (time.monotonic() - began)


@contextlib.contextmanager
def slowed(node: Node, *, share: float) -> Iterator[None]:
    """Let the processes of a node run for this share of every fifth of a second."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            pids = below([node.process.pid])
            for number, seconds in ((signal.SIGSTOP, 0.2 * (1 - share)), (signal.SIGCONT, 0.2 * share)):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(seconds)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
