"""Log lines of Ray that mean nothing to people are left out, in every process that uses Ray; all others stay.

A line is left out by its logger and its level, or by its exact text; unknown lines are printed. What Ray's C++ prints
has no logger: one such line is left out on its way to stderr.
"""

import contextlib
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator
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
# Ray Data gives every actor of a pool its arguments in this way, whatever they are (ray-project/ray#57733). They stay
# in the object store as long as the data set is read, so a restart finds them.
_RESTART_OF_ACTORS = re.compile(
    rb"\[[^][\n]*\] (\(\w+\) )?core_worker\.cc:\d+: Actor with class name: '[^'\n]*' and ID: '\w+' has "
    rb"constructor arguments in the object store and max_restarts > 0\. If the arguments in the object store go out of "
    rb"scope or are lost, the actor restart will fail\. See https://github\.com/ray-project/ray/issues/53727 for more "
    rb"details\.[^\n]*\n"
)
_STDERR = 2
_BYTES_AT_ONCE = 1 << 16  # no less than a pipe holds: a line that is written at once is read at once


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


@contextlib.contextmanager
def quiet_start_of_actors() -> Iterator[None]:
    """Leave out, within the block, the line that Ray prints for each actor that Ray Data starts; only one at a time."""
    terminal, (reading, writing) = os.dup(_STDERR), os.pipe()
    forwarding = threading.Thread(target=_forward, args=(reading, terminal), daemon=True)
    forwarding.start()
    os.dup2(writing, _STDERR)
    os.close(writing)
    try:
        yield
    finally:
        os.dup2(terminal, _STDERR)
        forwarding.join(timeout=1.0)  # it continues for a child process that has the pipe as its stderr


def _forward(reading: int, terminal: int) -> None:
    with open(terminal, "wb") as shown:
        while text := os.read(reading, _BYTES_AT_ONCE):
            shown.write(_RESTART_OF_ACTORS.sub(b"", text))
            shown.flush()
    os.close(reading)
