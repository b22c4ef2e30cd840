"""A train worker that hangs is ended and started again, and that changes nothing: `pytest -m faults`."""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.training_faults import Job, assert_ended_as, title_of, wait_for

HANG_SECONDS = 20
_PTRACE_ATTACH, _WAIT_FOR_THREADS = 16, 0x40000000
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize("what", ["process", "thread", "decoder"])
def test_a_worker_that_hangs_is_started_again_and_changes_nothing(what, tiny_shards, untouched, tmp_path):
    arguments = ("--epochs", "80", "--checkpoint.every_steps", "20", "--failure.hang_seconds", str(HANG_SECONDS))
    with Job(tmp_path, tiny_shards, *arguments) as job:
        job.start()
        job.wait_for_step(50)
        (worker,) = job.workers()
        if what == "process":
            os.kill(worker, signal.SIGSTOP)
        elif what == "thread":
            thread = training_thread(worker)
            stop_thread(thread)
        else:  # the worker waits for clips that do not come
            os.kill(wait_for(lambda: job.processes("ray::ReadRange"), seconds=60)[0], signal.SIGSTOP)
        step, began = job.step(), time.monotonic()
        wait_for(lambda: not title_of(worker), seconds=6 * HANG_SECONDS)
        ended = time.monotonic() - began
        if what == "thread":
            os.waitpid(thread, _WAIT_FOR_THREADS)  # the process that stopped a thread must reap it
        assert job.driver.wait(timeout=300) == 0, job.last_line()
        took = time.monotonic() - began
        timeouts = [line for line in job.lines() if "Timeout (0:00:20)!" in line]
        print(
            f"{what} hung after step {step}: the worker was ended {ended:.0f} s later by "
            f"{'itself' if timeouts else 'Ray'}, the run {took:.0f} s later"
        )
        assert ended > 0.9 * HANG_SECONDS
        assert timeouts or what != "decoder"
        assert_ended_as(job, untouched)


def training_thread(worker):
    """The thread of a process that uses the processor most."""

    def ticks():
        found = {}
        for task in Path(f"/proc/{worker}/task").iterdir():
            with contextlib.suppress(OSError):  # the watchdog's timer is another thread after every batch
                found[int(task.name)] = int((task / "stat").read_text().rsplit(")", 1)[1].split()[11])
        return found

    before, _, after = ticks(), time.sleep(1), ticks()
    return max(before.keys() & after.keys(), key=lambda thread: after[thread] - before[thread])


def stop_thread(thread):
    """Stop one thread, as if it hung in native code; the others continue."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(_PTRACE_ATTACH, thread, 0, 0) == 0, os.strerror(ctypes.get_errno())
