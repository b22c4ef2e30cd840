"""Connect a process to Ray, quietly, say where relative paths lead, and name what has no name.

`ray job submit --working-dir .` runs a job in a throw-away copy of the folder: what is written there is lost.
"""

import datetime
import functools
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import ray

JOB_HOME = "t3d-runs"
# The port of the Ray that `ray.init` starts: its address is known before it runs.
_PORT_VARIABLE = "RAY_GCS_SERVER_PORT"
# Ray starts workers with niceness 15, and its own processes push them aside: up to 4 % of a training worker's time.
_NICENESS_VARIABLE = "RAY_worker_niceness"
_LOG = logging.getLogger(__name__)
_LOUD = {
    "ray.data._internal.execution.streaming_executor": logging.WARNING,
    "ray.data._internal.logging": logging.WARNING,
    # This logger is named by its file.
    str(Path(ray.__file__).parent / "train" / "v2" / "_internal" / "execution" / "context.py"): logging.WARNING,
    # These warn of what is meant to be so: our own progress bars, and the token of a new local cluster.
    "ray.data._internal.progress": logging.ERROR,
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
}


def is_throw_away_copy(folder: Path) -> bool:
    """Whether `folder` lies in the copy of a working directory that Ray unpacked for a job."""
    return "working_dir_files" in folder.parts


def new_name(stage: str) -> str:
    """Make a name that no earlier run has: the stage and the time."""
    return f"{stage}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def base_folder() -> Path:
    """The folder that relative paths of runs, shards and tracking start from: where the user stands.

    In a job's throw-away copy it is `$HOME/t3d-runs` instead, and the log says so.
    """
    here = Path.cwd()
    return _leave_copy(here) if is_throw_away_copy(here) else here


@functools.cache  # said once, however often it is asked
def _leave_copy(here: Path) -> Path:
    base = Path.home() / JOB_HOME
    _LOG.warning("This job's folder is a throw-away copy: relative paths lead to %s", base)
    return base


def input_path(path: Path) -> Path:
    """Where a job finds what it reads: in its folder, or else where earlier runs wrote."""
    here = Path.cwd() / path
    return here if here.exists() else base_folder() / path


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (a job's, say), or start Ray on this machine for this process.

    On one machine Ray is told of two CPUs at least: one trains while the other decodes.
    """
    quiet()
    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(logging_level=logging.WARNING)
        return
    start_local()
    if ray.cluster_resources()["CPU"] < 2:
        ray.shutdown()
        start_local(num_cpus=2)


def start_local(**options: Any) -> None:
    """Start a Ray on this machine that ends with this process, and tell its workers its address.

    Ray Train asks in a worker process whether the run's controller lives, and asks whatever Ray that process finds on
    the machine. Beside another Ray (a second job, a `ray start`) it would ask that one, hear that there is no such
    controller, and take the run's workers away.

    Args:
        options: of `ray.init`.
    """
    # Nobody announces that this machine will be taken away; Ray's watcher of that would print an error of its own.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault(_NICENESS_VARIABLE, "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ[_PORT_VARIABLE] = str(port)
    try:
        runtime_env = {"env_vars": {"RAY_ADDRESS": f"127.0.0.1:{port}"}}
        ray.init(address="local", runtime_env=runtime_env, logging_level=logging.WARNING, **options)
    finally:
        del os.environ[_PORT_VARIABLE]


def quiet() -> None:
    """Silence what Ray's libraries tell of their plans, once in every process that uses them; warnings stay."""
    for name, level in _LOUD.items():
        # A filter, for Ray sets its loggers' levels anew at every execution.
        logging.getLogger(name).addFilter(functools.partial(_is_at_least, level))


def _is_at_least(level: int, record: logging.LogRecord) -> bool:
    return record.levelno >= level


def check_workers_fit(num_workers: int, resources_of_worker: dict[str, float]) -> None:
    """Refuse workers that leave no CPU for decoding: Ray would wait for ever without a word.

    Raises:
        ValueError: the cluster has fewer CPUs or GPUs than the workers and one decoder need.
    """
    cluster = ray.cluster_resources()
    for resource, each in resources_of_worker.items() if num_workers else ():
        spare = 1.0 if resource == "CPU" else 0.0
        needed, there = num_workers * each + spare, cluster.get(resource, 0.0)
        if needed > there:
            raise ValueError(
                f"{num_workers} workers with {each:g} {resource} each"
                f"{' and 1 CPU that must be left for decoding' if spare else ''} make {needed:g} {resource}, "
                f"but the cluster has {there:g}: lower the number of workers or what each reserves"
            )
    if (places := _places_for(resources_of_worker)) < num_workers:
        needs = " and ".join(f"{each:g} {resource}" for resource, each in resources_of_worker.items())
        raise ValueError(
            f"{num_workers} workers with {needs} each do not fit: each needs that on one node, and the nodes have "
            f"places for {places}: lower the number of workers or what each reserves"
        )


def room_for_groups(num_workers: int, resources_of_worker: dict[str, float]) -> int:
    """How many groups of so many workers, each group with a CPU for decoding, the cluster has room for now."""
    needed = {name: num_workers * each for name, each in resources_of_worker.items() if each}
    needed["CPU"] = needed.get("CPU", 0.0) + 1.0
    free = ray.available_resources()
    room = min(int(free.get(name, 0.0) / amount) for name, amount in needed.items())
    return min(room, _places_for(resources_of_worker) // num_workers)


def _places_for(resources_of_worker: dict[str, float]) -> int:
    """Workers that the nodes of the cluster can hold, each on one node."""
    needed = {name: each for name, each in resources_of_worker.items() if each}
    if not needed:
        return sys.maxsize
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(name, 0.0) / each) for name, each in needed.items()) for node in nodes)
