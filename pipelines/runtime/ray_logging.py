"""Log lines of Ray that mean nothing to people are left out, in every process that uses Ray; all others stay.

A line is left out by its logger and its level, or by its exact text; unknown lines are printed.
"""

import functools
import logging
import re
from pathlib import Path

import ray

_LOWEST_LEVELS = {
    "ray.data._internal.execution.streaming_executor": logging.WARNING,
    "ray.data._internal.logging": logging.WARNING,
    # This logger is named by its file.
    str(Path(ray.__file__).parent / "train" / "v2" / "_internal" / "execution" / "context.py"): logging.WARNING,
    # These warn of what is intended: our own progress bars, and the token of a new local cluster.
    "ray.data._internal.progress": logging.ERROR,
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
}
_MESSAGES = {
    # Twenty lines of traceback on a machine under load; the next request, seconds later, replaces the failed one.
    "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client": re.compile(
        r"Failed to send resource request for \S+\. If this only happens transiently during network partition or CPU "
        r"being overloaded, it's safe to ignore this error\. If this error persists, file a GitHub issue\."
    ),
}


def quiet() -> None:
    """Leave these lines out in this process; a second call changes nothing."""
    # Filters, because Ray resets the levels of its loggers at every execution.
    for name, level in _LOWEST_LEVELS.items():
        _add_filter(name, functools.partial(_is_at_least, level))
    for name, message in _MESSAGES.items():
        _add_filter(name, functools.partial(_is_another, message))


def _add_filter(name: str, is_shown: functools.partial[bool]) -> None:
    logger = logging.getLogger(name)
    known = [each for each in logger.filters if isinstance(each, functools.partial)]
    if not any((each.func, each.args) == (is_shown.func, is_shown.args) for each in known):
        logger.addFilter(is_shown)


def _is_at_least(level: int, record: logging.LogRecord) -> bool:
    return record.levelno >= level


def _is_another(message: re.Pattern[str], record: logging.LogRecord) -> bool:
    return message.fullmatch(record.getMessage()) is None
