"""Batches of the transfer without a network, as they reach the train worker, compared with those of training.

training input    clips alone: the input path of `train.input`
with frames       clips and the teacher's frames of the same time, decoded together
with features     clips and the teacher's features, read from the side files
literal pairs     clips and frames of drawn pairs; a negative decodes another row
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray

from pipelines.benchmark.measuring.object_store import StoreUse, watched_object_store
from pipelines.benchmark.measuring.processes import new_processes, num_cores_here, start_ray
from pipelines.clips.loader import BatchLoader
from pipelines.clips.order import TrainOrder, micro_batches
from pipelines.clips.stream import train_batches
from pipelines.shards.index import load_index
from pipelines.transfer.pair_loader import PairLoader, TeacherView
from pipelines.transfer.teacher_features import FeatureFiles, RowFeatures
from t3d_core.video.clip_sampling import ClipView

TRAINING, WITH_FRAMES, WITH_FEATURES, LITERAL_PAIRS = (
    *("training input", "transfer, with frames"),
    *("transfer, with features", "transfer, literal pairs"),
)
_VIEWS = 4


class Reading(NamedTuple):
    """One round of one case: clips, seconds to the last batch, use of the object store."""

    num_clips: int
    seconds: float
    store: StoreUse


class InputSizes(NamedTuple):
    """What is read: the student's view and the teacher's, clips per batch, batches per round."""

    clip: ClipView
    teacher: TeacherView
    feature_dim: int
    batch_size: int
    num_steps: int


def measure_transfer_input(shards: Path, sizes: InputSizes, *, repeats: int) -> dict[str, list[Reading]]:
    """Read the batches by every case in turns, after an uncounted round."""
    readings: dict[str, list[Reading]] = {}
    with new_processes(1, num_cores=num_cores_here()) as process:
        process.submit(start_ray, num_cores_here()).result()
        process.submit(_write_features, shards, sizes).result()
        for _ in range(1 + repeats):
            for case in (TRAINING, WITH_FRAMES, WITH_FEATURES, LITERAL_PAIRS):
                readings.setdefault(case, []).append(process.submit(_read, case, shards, sizes).result())
        process.submit(ray.shutdown).result()
    return {case: rounds[1:] for case, rounds in readings.items()}


def _view(case: str, sizes: InputSizes) -> TeacherView:
    if case == WITH_FEATURES:
        return replace(sizes.teacher, num_views=_VIEWS, features=_files(sizes))
    return replace(sizes.teacher, is_literal=case == LITERAL_PAIRS)


def _files(sizes: InputSizes) -> FeatureFiles:
    return FeatureFiles("0" * 64, _VIEWS, sizes.feature_dim)


def _write_features(shards: Path, sizes: InputSizes) -> None:
    """Write side files whose features are noise, because the values do not affect the reading."""
    index, files, rng = (
        load_index([shards], fold=1, splits=["train", "val", "test"]),
        _files(sizes),
        np.random.default_rng(0),
    )
    loader = PairLoader(index, sizes.clip, teacher=replace(sizes.teacher, num_views=_VIEWS))
    for shard, path in enumerate(index.shard_paths):
        with files.open_file(path) as append:
            rows = np.flatnonzero(index.shard_N == shard)
            for row in rows[np.argsort(index.row_N[rows])]:
                starts_K = loader.view_batch(np.full(_VIEWS, row), np.arange(_VIEWS))["start_B"]
                feature_KD = rng.random((_VIEWS, sizes.feature_dim), np.float32)
                append(RowFeatures(index.video_id_N[row], "", starts_K, feature_KD))


def _read(case: str, shards: Path, sizes: InputSizes) -> Reading:
    index = load_index([shards], fold=1, splits=["train"])
    loader = BatchLoader(index, sizes.clip)
    if case != TRAINING:
        loader = PairLoader(index, sizes.clip, teacher=_view(case, sizes))
    order = TrainOrder(len(index), sizes.batch_size, seed=0)
    places = micro_batches(sizes.batch_size, size=None, rank=0, world_size=1)
    with watched_object_store() as store:
        started = time.perf_counter()
        num_clips = 0
        for batch in train_batches(loader, order, steps=range(sizes.num_steps), places=places):
            assert (batch["reason_B"] == "").all(), batch["reason_B"]
            num_clips += len(batch["row_B"])
        seconds = time.perf_counter() - started
    return Reading(num_clips, seconds, store)
