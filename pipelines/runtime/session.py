"""Connect a process to Ray quietly: to the cluster that it was submitted to, or to a new one on this machine."""

import contextlib
import logging
import os
import resource
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines.runtime.ray_logging import quiet
from pipelines.runtime.temporary_folder import prepare_temporary_folders
from t3d_core.errors import UserError

# A head that is just restarting does not listen yet.
_SECONDS_TO_ANSWER = 10.0
# The port of the Ray that `ray.init` starts: its address is known before it runs.
_PORT_VARIABLE = "RAY_GCS_SERVER_PORT"
# Ray starts workers with niceness 15, and its own processes push them aside: up to 4 % of a training worker's time.
_NICENESS_VARIABLE = "RAY_worker_niceness"
# Of the clusters of this user; without it Ray writes one into the home folder.
_TOKEN_VARIABLE = "RAY_AUTH_TOKEN"


def connect(*, num_cpus: int | None = None) -> None:
    """Join the cluster that RAY_ADDRESS names (as in a submitted job), or start Ray on this machine for this process.

    Args:
        num_cpus: CPUs that Ray hands out on one machine, even if there are fewer. By default all, and at least two: one
            trains while the other decodes.

    Raises:
        UserError: the cluster does not answer, rejects the token, or has another version of Ray or Python.
    """
    quiet()
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":  # Ray's own name for a new one on this machine
        _join(address)
        return
    if num_cpus is not None:
        start_local(num_cpus=num_cpus)
        return
    start_local()
    if ray.cluster_resources()["CPU"] < 2:
        ray.shutdown()
        start_local(num_cpus=2)


def _join(address: str) -> None:
    try:
        _check_answers(address)
        ray.init(logging_level=logging.WARNING)
    except (RuntimeError, ValueError, OSError, RayError) as error:
        reason = " ".join(str(error).split())
        cure = (
            "run the job with the Ray and Python versions of the cluster (its image)"
            if "ersion mismatch" in reason
            else "check that it runs (`ray status`), and that RAY_ADDRESS, RAY_AUTH_MODE and the token belong to it, "
            "or unset RAY_ADDRESS to run on this machine alone"
        )
        raise UserError(f"the Ray cluster at {address} cannot be joined: {reason}; {cure}") from error


def _check_answers(address: str) -> None:
    """Raise an OSError within seconds where nothing listens; Ray itself would try for minutes without a message."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + _SECONDS_TO_ANSWER
    while port.isdecimal() and "://" not in host:  # neither `auto` nor `ray://...`
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def start_local(**options: Any) -> None:
    """Start a Ray on this machine that ends with this process, and pass its address to the workers.

    In a worker process Ray Train checks whether the controller of the run is alive, with any Ray that it finds on the
    machine. If there is another Ray (a second job, a `ray start`), it would check with that one, find no such
    controller, and stop the workers of the run.

    Args:
        options: arguments of `ray.init`.

    Raises:
        UserError: there is no folder that Ray may use, or its processes do not start.
    """
    prepare_temporary_folders()
    _ensure_token()
    # No preemption of this machine is ever announced; Ray's watcher for it would print an error.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault(_NICENESS_VARIABLE, "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[_PORT_VARIABLE] = str(port)
    try:
        runtime_env = {"env_vars": {"RAY_ADDRESS": f"127.0.0.1:{port}"}}
        ray.init(address="local", runtime_env=runtime_env, logging_level=logging.WARNING, **options)
    except Exception as error:
        if type(error) is not Exception:  # the type of what Ray raises where its processes do not start
            raise
        raise UserError(_describe_failed_start(error)) from error
    finally:
        del os.environ[_PORT_VARIABLE]
        _hide_token()


def _describe_failed_start(error: Exception) -> str:
    """The error with what its processes need, and how much of that there is."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ["TMPDIR"]) / "ray"
    num_processes, num_files = (resource.getrlimit(each)[0] for each in (resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE))
    return (
        f"Ray does not start on this machine ({' '.join(str(error).split())}): look for the cause in "
        f"{folder}/session_latest/logs. It needs room in {folder} ({shutil.disk_usage(folder).free / 1e6:.0f} MB are "
        f"free; RAY_TMPDIR names another folder), processes and threads (`ulimit -u`: {_limit(num_processes)}) and "
        f"open files (`ulimit -n`: {_limit(num_files)})"
    )


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _ensure_token() -> None:
    """Give this Ray a token of its own where its user has no home folder that Ray could keep one in."""
    folder = _token_file().parent
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK) and not _token_file().is_file():
        if not any(name in os.environ for name in (_TOKEN_VARIABLE, f"{_TOKEN_VARIABLE}_PATH")):
            os.environ[_TOKEN_VARIABLE] = secrets.token_hex(32)


def _hide_token() -> None:
    """Make the token of this user's clusters private: Ray writes it readable for all."""
    token = _token_file()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def _token_file() -> Path:
    return Path(os.path.expanduser("~"), ".ray", "auth_token")
