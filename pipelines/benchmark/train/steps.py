"""The same training steps twice: fed by the whole path (Ray Train, Ray Data, shards) and by a plain loop from memory.

Both sides run the project's loop on one thread of torch, on the same clips in the same order. So their losses must be
equal bit for bit. The whole path is all of `jobs/train.py`; the other side takes batches that were decoded into memory
before the clock started. The clock is the loop's own (`meter`): it counts steps and the waiting for clips, but not
validations, checkpoints and start-up. The first steps, with the wait for the first batch, are reported separately.
"""

import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch

from pipelines.benchmark.measuring.object_store import StoreUse, watched_object_store
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here
from pipelines.benchmark.measuring.rows import median_ratio
from pipelines.clips.batch import NumpyBatch
from pipelines.clips.loader import BatchLoader
from pipelines.clips.stream import load_places
from pipelines.runtime.ray_logging import quiet
from pipelines.runtime.session import start_local
from pipelines.settings.build import changed
from pipelines.train.config import ResolvedTrainConfig
from pipelines.train.job import run_train
from pipelines.train.stage import ClassificationStage, build_stage
from pipelines.training.checkpoints import CheckpointFolder
from pipelines.training.loop import run_training_loop
from pipelines.training.run_folder import metrics_file
from pipelines.training.stage import random_crop_of
from pipelines.training.worker import Worker

# One thread for torch, one CPU for Ray Data's tasks.
_NUM_CPUS = 2


@dataclass(frozen=True)
class Curve:
    """The log of one run: seconds and clips of the timed steps, losses, and the wait for the first batch."""

    seconds: float
    num_clips: int
    losses: tuple[float, ...]
    first_batch_seconds: float


class StepRates(NamedTuple):
    """Rounds of the whole path and of the plain loop, and the largest use of the object store."""

    whole: Sequence[Curve]
    plain: Sequence[Curve]
    store: StoreUse

    @property
    def whole_over_plain(self) -> float:
        """Clips a second of the whole path / those of the plain loop, the median over the rounds."""
        return median_ratio([curve.seconds for curve in self.plain], [curve.seconds for curve in self.whole])

    @property
    def first_batch_seconds(self) -> float:
        """From the first step's request for clips to their arrival, the median over the rounds."""
        return statistics.median(curve.first_batch_seconds for curve in self.whole)

    @property
    def num_unequal_losses(self) -> int:
        """Number of points whose loss differs from that of the first plain round."""
        expected = self.plain[0].losses
        curves = [*self.whole, *self.plain]
        return sum(found != wanted for c in curves for found, wanted in zip(c.losses, expected, strict=True))


def clips_per_second(curves: Sequence[Curve]) -> float:
    """The median over the rounds."""
    return statistics.median(curve.num_clips / curve.seconds for curve in curves)


def measure_steps(config: ResolvedTrainConfig, *, folder: Path, repeats: int) -> StepRates:
    """Train in both ways in turns, after an uncounted round.

    Args:
        config: the run; its curve needs two points, because the time before the first does not count.
        folder: for what the runs write.
        repeats: rounds.
    """
    whole, plain, stores = [], [], []
    with _started(ray_cpus=_NUM_CPUS) as by_ray, _started(ray_cpus=0) as alone:
        for number in range(1 + repeats):
            run = changed(config, {"name": str(number), "storage": str(folder)})
            curve, store = by_ray.submit(_train_whole, run).result()
            whole.append(curve)
            stores.append(store)
            plain.append(alone.submit(_train_from_memory, run, folder / f"plain {number}").result())
    return StepRates(whole[1:], plain[1:], max(stores, key=lambda store: (store.spilled_bytes, store.peak_bytes)))


@contextmanager
def _started(*, ray_cpus: int) -> Iterator[ProcessPoolExecutor]:
    with new_processes(1, num_cores=num_cores_here()) as process:
        process.submit(torch.set_num_threads, 1).result()
        if ray_cpus:
            process.submit(_start_ray_as_jobs_do, ray_cpus).result()
        yield process
        process.submit(ray.shutdown).result()


def _start_ray_as_jobs_do(num_cpus: int) -> None:
    quiet()
    start_local(num_cpus=num_cpus)


def _train_whole(config: ResolvedTrainConfig) -> tuple[Curve, StoreUse]:
    with watched_object_store() as store:
        run_train(config)
    lines = metrics_file(config.storage / str(config.name)).read_text().splitlines()
    return _curve(config, [(line["step"], line["metrics"]) for line in map(json.loads, lines)]), store


def _train_from_memory(config: ResolvedTrainConfig, folder: Path) -> Curve:
    stage = build_stage(config, list(config.data.shards), None)
    points: list[tuple[int, dict[str, float]]] = []
    worker = Worker(
        checkpoints=CheckpointFolder(folder, num_to_keep=1),
        checkpoint=None,
        device=torch.device("cpu"),
        log=lambda metrics, step: points.append((step, metrics)),
    )
    outcome = run_training_loop(_in_memory(stage), worker)
    assert outcome.refusal is None, outcome.refusal
    return _curve(config, points)


@dataclass(frozen=True)
class _StageInMemory(ClassificationStage):
    """Gives decoded batches from lists."""

    decoded: Sequence[NumpyBatch] = ()
    decoded_to_validate: Sequence[NumpyBatch] = ()

    def train_batches(self, *, steps: range, places: Sequence[range]) -> Iterator[NumpyBatch]:
        """The batches of `steps`, each as one micro-batch."""
        assert len(places) == 1, "this stage has one micro-batch a step"
        return iter(self.decoded[steps.start : steps.stop])

    def validation_batches(self, *, rank: int, world_size: int) -> Iterator[NumpyBatch]:
        """All of them, because there is one worker."""
        assert (rank, world_size) == (0, 1), "this stage has one worker"
        return iter(self.decoded_to_validate)


def _in_memory(stage: ClassificationStage) -> _StageInMemory:
    order, config = stage.order, stage.config
    loader = BatchLoader(stage.train_index, stage.card.clip_view(), random_crop=random_crop_of(config.augmentation))
    everywhere = range(config.global_batch_size)
    steps = range(order.num_steps(config.epochs))
    decoded = [load_places(loader, order, step, everywhere) for step in steps]
    return _StageInMemory(**vars(stage), decoded=decoded, decoded_to_validate=list(_validation(stage)))


def _validation(stage: ClassificationStage) -> Iterator[NumpyBatch]:
    loader = BatchLoader(stage.val_index, stage.card.clip_view())
    yield loader.center_batch(torch.arange(len(stage.val_index)).numpy())


def _curve(config: ResolvedTrainConfig, points: Sequence[tuple[int, dict[str, Any]]]) -> Curve:
    """Sum up the log of the loop; the throughput of a point covers the steps since the previous point."""
    [first_batch_seconds] = [m[name] for _, m in points if (name := "throughput/time_to_first_batch_seconds") in m]
    trained = [(step, metrics) for step, metrics in points if "throughput/clips_per_second" in metrics]
    seconds, num_clips = 0.0, 0
    for (before, _), (step, metrics) in itertools.pairwise(trained):
        clips = (step - before) * config.global_batch_size
        num_clips += clips
        seconds += clips / metrics["throughput/clips_per_second"]
    losses = tuple(metrics["train/loss"] for _, metrics in trained)
    return Curve(seconds, num_clips, losses, first_batch_seconds)
