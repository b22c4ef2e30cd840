"""Which of Ray's log lines are left out: those that are known, and no other."""

import logging
import os
import pickle
import subprocess
import sys

import pytest

from pipelines.runtime.ray_logging import quiet, quiet_start_of_actors
from pipelines.training.workers import QuietController

COORDINATOR = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
HARMLESS = (
    "Failed to send resource request for train-x1. If this only happens transiently during network partition or CPU "
    "being overloaded, it's safe to ignore this error. If this error persists, file a GitHub issue."
)


@pytest.fixture
def shown(caplog):
    """What a logger lets through."""

    def shown(name, level, message):
        caplog.clear()
        logger = logging.getLogger(name)
        logger.propagate, logger.disabled = True, False
        logger.setLevel(logging.DEBUG)
        logger.log(level, message)
        return caplog.messages

    quiet()
    with caplog.at_level(logging.DEBUG):
        yield shown


def test_a_line_that_says_itself_that_it_is_safe_is_left_out(shown):
    assert shown(COORDINATOR, logging.WARNING, HARMLESS) == []


@pytest.mark.parametrize("message", [f"{HARMLESS} It persists.", "Failed to send resource request for train-x1."])
def test_another_line_of_the_same_logger_is_shown(shown, message):
    assert shown(COORDINATOR, logging.WARNING, message) == [message]


def test_plans_are_left_out_and_warnings_stay(shown):
    executor = "ray.data._internal.execution.streaming_executor"
    assert shown(executor, logging.INFO, "Starting execution") == []
    assert shown(executor, logging.WARNING, "out of memory") == ["out of memory"]


def test_whoever_unpickles_the_callback_is_quiet(shown):
    logger = logging.getLogger(COORDINATOR)
    logger.filters.clear()
    assert shown(COORDINATOR, logging.WARNING, HARMLESS) == [HARMLESS]
    assert isinstance(pickle.loads(pickle.dumps(QuietController())), QuietController)
    assert shown(COORDINATOR, logging.WARNING, HARMLESS) == []
    assert len(logger.filters) == 1
    quiet()
    assert len(logger.filters) == 1


RESTART = (
    b"[2026-11-30 01:44:50,930 E 20544 20544] core_worker.cc:2465: Actor with class name: 'MapWorker(MapBatches(A))' "
    b"and ID: 'a4a43a288414d947b125672101000000' has constructor arguments in the object store and max_restarts > 0. "
    b"If the arguments in the object store go out of scope or are lost, the actor restart will fail. See "
    b"https://github.com/ray-project/ray/issues/53727 for more details.\n"
)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ([b"0 of 2 views [00:00<?]", RESTART, b"\r1 of 2"], b"0 of 2 views [00:00<?]\r1 of 2"),
        ([b"0 of 2 [00:00<?]" + RESTART + RESTART + b"1 of 2\n"], b"0 of 2 [00:00<?]1 of 2\n"),
        ([RESTART.replace(b"has constructor", b"lost its constructor")] * 2, None),
        ([b"x" * 200_000 + b"\n"], None),
    ],
)
def test_the_line_about_restarts_of_actors_is_left_out_and_nothing_else(capfd, written, shown):
    with quiet_start_of_actors():
        for text in written:
            os.write(2, text)
    os.write(2, b"after")
    assert capfd.readouterr().err.encode() == (shown or b"".join(written)) + b"after"


def test_a_child_process_keeps_its_stderr_after_the_block(capfd):
    with quiet_start_of_actors():
        child = subprocess.Popen(
            [sys.executable, "-c", "import os; input(); os.write(2, b'late')"], stdin=subprocess.PIPE
        )
    child.communicate(b"\n")
    child.wait()
    assert "late" in capfd.readouterr().err
