"""Which of Ray's log lines are left out: those that are known, and no other."""

import logging
import pickle

import pytest

from pipelines.runtime.ray_logging import quiet
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
