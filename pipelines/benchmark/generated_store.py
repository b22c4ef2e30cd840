"""A tracking store with as many training runs as one asks for, and what it takes to compare them."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines import tracking
from pipelines.benchmark.processes import memory_bytes
from pipelines.configs import TrainConfig
from pipelines.recipe import flatten
from pipelines.run_configs import TrackingConfig

_PROJECT = Path(__file__).parents[2]
_LOOK_SECONDS = 0.05
_SEEDS = 5
_CURVES = ("val/loss", "val/clip_top1")


class ComparisonCosts(NamedTuple):
    """What one comparison took."""

    seconds: float
    peak_bytes: int


def make_store(folder: Path, *, num_runs: int, num_points: int) -> str:
    """Log runs of a search, five seeds a point, each with two curves of so many points; give the tracking URI."""
    tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
    rng = np.random.default_rng(0)
    for number in range(num_runs):
        lr, seed = round(0.001 * (1 + number // _SEEDS), 6), number % _SEEDS
        config = TrainConfig(
            data={"shards": ["shards"]},
            model={"kind": "t3d_121"},
            clip={},
            global_batch_size=8,
            epochs=num_points,
            schedule={"kind": "cosine"},
            optimizer={"lr": lr},
            seed=seed,
        )
        with tracking.start_run(
            tracking_uri=tracking_uri,
            experiment=TrackingConfig().experiment,
            run_name=f"run-{number}",
            run_id=None,
            tags={"stage": "train", tracking.POINT: f"lr={lr:g}", f"{tracking.AXIS}optimizer.lr": str(lr)},
        ) as run:
            run.log_params(flatten(config))
            run.log_metrics({"model/gmacs": 1.0 + lr, "model/parameters": 1e6}, step=0)
            values = rng.random((num_points, len(_CURVES)))
            points = [
                tracking.Point(name, float(value), time_ms=1000 * step, step=step)
                for step, of_step in enumerate(values, start=1)
                for name, value in zip(_CURVES, of_step, strict=True)
            ]
            for first in range(0, len(points), tracking.MAX_POINTS):
                run.log_points(points[first : first + tracking.MAX_POINTS])
    return tracking_uri


def measure_comparison(tracking_uri: str, folder: Path) -> ComparisonCosts:
    """Compare all runs of a store by their learning rate with jobs/compare.py, from its start to its end.

    Raises:
        RuntimeError: it failed; the end of its output is the message.
    """
    options = ["--group_by", "optimizer.lr", "--tracking.uri", tracking_uri, "--output", str(folder / "report")]
    began, peak = time.perf_counter(), 0
    with (folder / "log.txt").open("w+") as log:
        job = subprocess.Popen(
            [sys.executable, str(_PROJECT / "jobs" / "compare.py"), *options],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(_PROJECT)},
            cwd=folder,
        )
        while job.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # it has ended meanwhile
                peak = max(peak, memory_bytes(job.pid, "VmHWM"))
            time.sleep(_LOOK_SECONDS)
        seconds = time.perf_counter() - began
        log.seek(0)
        if job.returncode != 0:
            raise RuntimeError(f"the comparison that is measured failed: {log.read()[-2000:]}")
    return ComparisonCosts(seconds, peak)
