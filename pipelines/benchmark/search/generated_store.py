"""A generated tracking store with a given number of training runs, and the cost of comparing them."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.benchmark.measuring.processes import memory_bytes
from pipelines.settings.section import flatten
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.recorded import AXIS, POINT, TRAINED_BY
from pipelines.tracking.runs import MAX_POINTS, Point, Run, start_run
from pipelines.train.config import TrainConfig

_PROJECT = Path(__file__).parents[3]
_LOOK_SECONDS = 0.05
_SEEDS = 5
_CURVES = ("val/loss", "val/clip_top1")


class ComparisonCosts(NamedTuple):
    """The cost of one comparison."""

    seconds: float
    peak_bytes: int


def make_store(folder: Path, *, num_runs: int, num_points: int, num_tested: int) -> str:
    """Log runs of a search, five seeds per point, and the test of each; return the tracking URI.

    Args:
        folder: for the store.
        num_runs: training runs.
        num_points: points of each of two curves of a run.
        num_tested: videos of a test.
    """
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
            optimizer={"kind": "sgd", "lr": lr},
            seed=seed,
        )
        with start_run(
            tracking_uri=tracking_uri,
            experiment=TrackingConfig().experiment,
            run_name=f"run-{number}",
            run_id=None,
            tags={"stage": "train", POINT: f"lr={lr:g}", f"{AXIS}optimizer.lr": str(lr)},
        ) as run:
            run.log_params(flatten(config))
            run.log_metrics({"model/gmacs": 1.0 + lr, "model/parameters": 1e6}, step=0)
            values = rng.random((num_points, len(_CURVES)))
            points = [
                Point(name, float(value), time_ms=1000 * step, step=step)
                for step, of_step in enumerate(values, start=1)
                for name, value in zip(_CURVES, of_step, strict=True)
            ]
            for first in range(0, len(points), MAX_POINTS):
                run.log_points(points[first : first + MAX_POINTS])
        _log_test(run, folder / "scores.parquet", is_correct_V=rng.random(num_tested) < 0.5)
    return tracking_uri


def _log_test(trained: Run, scores: Path, *, is_correct_V: np.ndarray) -> None:
    labels = ["jump"] * len(is_correct_V)
    predicted = ["jump" if is_correct else "walk" for is_correct in is_correct_V]
    ids = [f"video-{number}" for number in range(len(is_correct_V))]
    pq.write_table(pa.table({"video_id": ids, "source": ids, "label": labels, "predicted": predicted}), scores)
    with start_run(
        tracking_uri=trained.tracking_uri,
        experiment=TrackingConfig().experiment,
        run_name="test",
        run_id=None,
        tags={"stage": "evaluate", TRAINED_BY: trained.run_id},
    ) as run:
        run.log_metrics({"video_top1": float(is_correct_V.mean()), "num_videos": float(len(ids))}, step=0)
        run.log_artifact(scores)


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
