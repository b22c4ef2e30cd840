"""Resident memory of a training run's processes, epoch by epoch: does it grow?

The job is `jobs/train.py` or `jobs/transfer.py` with its own Ray, whose processes are its children. All of them are
sampled ten times a second. The figure of a role in an epoch is the peak of its largest process over the samples of that
epoch. Pages of the object store do not count: they are one block of shared memory, which `object_store` measures.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.benchmark.measuring.processes import command_line, family, memory_bytes
from pipelines.benchmark.measuring.rows import BenchmarkRow, Goal
from pipelines.settings.recipe import to_yaml
from pipelines.training.config import RunConfig
from pipelines.training.run_folder import metrics_file

ROLES = ("driver", "train worker", "decoder")

_PROJECT = Path(__file__).parents[3]
_LOOK_SECONDS = 0.1
_MAX_DEVIATION = 0.05
# The first epoch fills caches and pools.
_FIRST_EPOCH = 1


class Residents(NamedTuple):
    """By role, the bytes of every epoch after the first."""

    bytes_by_epoch: dict[str, list[int]]

    def largest_deviation(self, role: str) -> float:
        """Largest deviation of an epoch from the median of all: 0.05 is 5 %."""
        values = self.bytes_by_epoch[role]
        middle = statistics.median(values)
        return max(abs(value / middle - 1) for value in values)


def measure_residents(config: RunConfig, *, job: Literal["train", "transfer"], folder: Path) -> Residents:
    """Run the job to its end.

    Args:
        config: a run with a new name that logs every step.
        job: whose configuration it is.
        folder: for its recipe and log.

    Raises:
        RuntimeError: the job failed (the end of its output is the message), or a process was not seen in an epoch.
    """
    recipe = folder / "recipe.yaml"
    recipe.write_text(to_yaml(config))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, str(_PROJECT / "jobs" / f"{job}.py"), "--recipe", str(recipe)],
            stdout=log,
            stderr=log,
            env=environment | {"PYTHONPATH": str(_PROJECT)},
            cwd=folder,
        )
        found = _watch(process, metrics_file(config.storage / str(config.name)))
        log.seek(0)
        if process.wait() != 0:
            raise RuntimeError(f"the training run whose memory is measured failed: {log.read()[-2000:]}")
    epochs = range(_FIRST_EPOCH, config.epochs)
    if unseen := [(role, epoch) for role in ROLES for epoch in epochs if (role, epoch) not in found]:
        raise RuntimeError(f"no {unseen[0][0]} was seen in epoch {unseen[0][1]} of the run whose memory is measured")
    return Residents({role: [found[role, epoch] for epoch in epochs] for role in ROLES})


def _watch(job: subprocess.Popen, metrics: Path) -> dict[tuple[str, int], int]:
    """The most bytes by (role, 0-based epoch) until the job ends."""
    most: defaultdict[tuple[str, int], int] = defaultdict(int)
    while job.poll() is None:
        if (epoch := _epoch(metrics)) is not None:
            for process in family(job.pid):
                with suppress(OSError, StopIteration):  # it has ended meanwhile
                    role = _role(process, driver=job.pid)
                    own = memory_bytes(process, "VmRSS") - memory_bytes(process, "RssShmem")
                    most[role, epoch] = max(most[role, epoch], own)
        time.sleep(_LOOK_SECONDS)
    return most


def _epoch(metrics: Path) -> int | None:
    """The epoch of the last logged step, 0-based; None before the first."""
    with suppress(OSError):
        for line in reversed(metrics.read_text().splitlines()):
            with suppress(ValueError):  # a line that is being written
                if "epoch" in (values := json.loads(line)["metrics"]):
                    return int(values["epoch"])
    return None


def _role(process: int, *, driver: int) -> str:
    if process == driver:
        return "driver"
    command = command_line(process)
    if command.startswith("ray::RayTrainWorker"):
        return "train worker"
    return "decoder" if command.startswith(("ray::ReadRange", "ray::IDLE")) else "other"


def resident_rows(suite: str, residents: Residents) -> Iterator[BenchmarkRow]:
    """Bytes of the largest process of each role in the first and the last epoch, and the largest deviation."""
    for role in ROLES:
        values = residents.bytes_by_epoch[role]
        yield BenchmarkRow(suite, role, "resident_first", values[0] / 1e6, "MB")
        yield BenchmarkRow(suite, role, "resident_last", values[-1] / 1e6, "MB")
        yield BenchmarkRow(suite, role, "resident_deviation", 100 * residents.largest_deviation(role), "%")


def resident_goals(residents: Residents) -> Iterator[Goal]:
    """The goal: memory does not grow."""
    for role in ROLES:
        text = f"resident, {role}: largest deviation of {len(residents.bytes_by_epoch[role])} epochs"
        yield Goal(text, residents.largest_deviation(role), _MAX_DEVIATION, True)
