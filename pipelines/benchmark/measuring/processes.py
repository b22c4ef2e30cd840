"""Processes for the cases of a benchmark: how to start them, list their descendants, and read their memory."""

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from pipelines.runtime.ray_logging import quiet
from pipelines.runtime.session import start_local


def num_cores_here() -> int:
    """Logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def new_processes(num_processes: int, *, num_cores: int) -> ProcessPoolExecutor:
    """Processes that share nothing with this one, bound with their children to its first `num_cores` cores."""
    return ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=_bind, initargs=(num_cores,))


def _bind(num_cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:num_cores])


def start_ray(num_cores: int) -> None:
    """Start Ray with `num_cores` CPUs in this process."""
    quiet()
    start_local(num_cpus=num_cores, include_dashboard=False)


def family(process: int) -> Iterator[int]:
    """The process and all its descendants."""
    children = defaultdict(list)
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(entry))
    waiting = [process]
    while waiting:
        yield (member := waiting.pop())
        waiting += children[member]


def command_line(process: int) -> str:
    """The command line of a process, or the title that it gave itself; NUL separates the words.

    Raises:
        OSError: it has ended.
    """
    return Path(f"/proc/{process}/cmdline").read_text()


def memory_bytes(process: int, field: Literal["VmHWM", "VmRSS", "RssShmem"]) -> int:
    """Resident bytes of a process: its peak (VmHWM), now (VmRSS), or the shared part of that (RssShmem).

    Raises:
        OSError: it has ended.
        StopIteration: it is ending, and has no memory left.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def proportional_bytes(process: int) -> int:
    """Resident bytes of a process, of which a page that several processes share counts only in part (Pss).

    Raises:
        OSError: it has ended.
        StopIteration: it is ending, and has no memory left.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
