"""A teacher runs once over fixed views of all rows: Ray Data decodes, a pool of actors holds the teacher.

Each shard gets its side file (`teacher_features`) as soon as its last row is done. An interrupted pass therefore
resumes at the first shard without one.

Legend: B views of a batch, K views of a row, D feature width.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple, Protocol

import numpy as np
import ray
import torch
from tqdm import tqdm

from pipelines.clips.batch import NumpyBatch
from pipelines.clips.stream import (
    CLIPS_A_PIECE,
    as_row,
    batches_a_task,
    dataset_of,
    from_row,
    stream,
    unpacked_of_actors,
)
from pipelines.runtime import pools
from pipelines.shards.index import ShardIndex, rows_of_shard
from pipelines.tracking.runs import Run
from pipelines.training.device_batch import to_device
from pipelines.transfer.config import ExportedTeacherConfig, TeacherCacheConfig, TeacherConfig, TransferConfig
from pipelines.transfer.pair_loader import PairLoader
from pipelines.transfer.teacher_features import FeatureFiles, RowFeatures
from t3d_core.errors import UserError
from t3d_core.transfer.teacher import FrozenTeacher

_NOT_OF_THE_VIEW = ("features", "is_literal", "has_other_time")
_NOT_ASKED_FOR = "it is not in split train of the fold"


class PassOutcome(NamedTuple):
    """The views that the teacher ran on in a pass, and the rows that could not be read."""

    num_views: int
    num_failed_rows: int


class ViewLoader(Protocol):
    """Decodes what a teacher sees: a few views of every row, such as those of `PairLoader`."""

    @property
    def index(self) -> ShardIndex:
        """The rows."""

    @property
    def bytes_a_clip(self) -> int:
        """Bytes of the frames of one view, or more."""

    def view_batch(self, rows: np.ndarray, views: np.ndarray) -> NumpyBatch:
        """Load views of rows, as `PairLoader.view_batch`."""


class TeacherActor:
    """An actor that holds the teacher."""

    def __init__(self, teacher: FrozenTeacher, *, use_gpu: bool) -> None:
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._teacher = teacher.to(self._device)

    def __call__(self, row: NumpyBatch) -> NumpyBatch:
        """Return the features of a batch that is one row of a data set (see `clips.stream.as_row`)."""
        return as_row(self.with_features(from_row(row)))

    def with_features(self, batch: NumpyBatch) -> NumpyBatch:
        """Return a batch with the teacher's features in place of its frames."""
        frames_BTHWC = to_device({"frames": batch.pop("teacher_frames_BTHWC")}, self._device)["frames"]
        return batch | {"teacher_BD": self._teacher(frames_BTHWC).cpu().numpy()}


class _Piece(NamedTuple):
    """Views of one shard that are decoded together: view `views[i]` of row `rows[i]` of the index."""

    shard: int
    rows: np.ndarray
    views: np.ndarray


def cached_features(
    loader: PairLoader, teacher: FrozenTeacher, config: TransferConfig, cache: TeacherCacheConfig, run: Run
) -> FeatureFiles:
    """Compute the teacher's features that are missing for rows of the loader's index; return the files of all.

    Args:
        loader: of the run; its teacher's view has no features yet.
        teacher: runs on rows without features.
        config: of the run.
        cache: its views and workers.
        run: gets the time the pass took.

    Raises:
        UserError: as in `run_teacher_pass`.
    """
    fingerprint = _fingerprint(config, teacher, loader)
    files = FeatureFiles(fingerprint, cache.num_views, teacher.target_dim)
    started = time.monotonic()
    num_views, num_failed = run_teacher_pass(loader, teacher, files, cache)
    if num_views:
        seconds = time.monotonic() - started
        run.log_metrics({"cache/seconds": seconds, "cache/views": num_views, "cache/failed_rows": num_failed}, step=0)
        print(f"teacher features: {num_views} views in {seconds:.0f} s, {num_failed} rows cannot be read", flush=True)
    run.set_tags({"teacher_features": fingerprint})
    return files


def _fingerprint(config: TransferConfig, teacher: FrozenTeacher, loader: PairLoader) -> str:
    """A hash of all that the features follow from, except the shards: teacher, views, and which rows have features."""
    view = {name: value for name, value in asdict(loader.teacher).items() if name not in _NOT_OF_THE_VIEW}
    # Files of the settings that there were first keep the names that they had then.
    if view.pop("is_random_crop") is False:
        view["crop"] = "center"
    if teacher.target != "mean":
        view["target"] = teacher.target
    clip = {name: getattr(loader.clip, name) for name in ("num_frames", "frame_stride", "short_video")}
    if loader.clip.seconds_per_frame is not None:
        clip["seconds_per_frame"] = loader.clip.seconds_per_frame
    sizes = (loader.clip.crop_size, loader.clip.short_side)
    # Files of views that may be mirrored keep the name that they had before flips could be turned off.
    own_crop = None if loader.random_crop.flip else {"flip": False}
    crop = [asdict(loader.random_crop), *sizes] if config.teacher.shared_crop else own_crop
    named = identity_of(config.teacher, teacher)
    described = json.dumps([named, view, clip, crop, config.data.fold], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def identity_of(config: TeacherConfig, teacher: FrozenTeacher) -> list[str]:
    """What features of frames follow from, except the frames: the kind of teacher, its program and its weights."""
    program = config.weights.read_bytes() if isinstance(config, ExportedTeacherConfig) else b""
    return [config.kind, hashlib.sha256(program).hexdigest(), teacher.fingerprint()]


def run_teacher_pass(
    loader: ViewLoader, teacher: FrozenTeacher, files: FeatureFiles, config: TeacherCacheConfig
) -> PassOutcome:
    """Compute the features of every row of the loader's index whose shard has no side file yet.

    Args:
        loader: gives the views; its teacher's view has no features yet.
        teacher: runs on the views.
        files: where the features go.
        config: the pool.

    Raises:
        UserError: a side file is of another teacher or shard; or the pool leaves no CPU for decoding; or features are
            not finite; or a file cannot be written.
    """
    missing = files.missing(loader.index)
    pieces = list(_pieces(loader.index, missing, num_views=files.num_views))
    if not pieces:
        return PassOutcome(0, 0)
    num_views, num_failed_rows = sum(len(piece.rows) for piece in pieces), 0
    batches = _feature_batches(loader, teacher, pieces, config)
    with tqdm(total=num_views, desc="teacher features", unit="view") as bar:
        for shard, of_shard in itertools.groupby(pieces, key=lambda piece: piece.shard):
            gathered = []
            for piece in of_shard:
                gathered.append(next(batches))
                bar.update(len(piece.rows))
            joined = {name: np.concatenate([batch[name] for batch in gathered]) for name in gathered[0]}
            num_failed_rows += _write(loader.index, shard, joined, files)
    return PassOutcome(num_views, num_failed_rows)


def _pieces(index: ShardIndex, shards: Sequence[int], *, num_views: int) -> Iterator[_Piece]:
    for shard in shards:
        rows = np.repeat(np.flatnonzero(index.shard_N == shard), num_views)
        views = np.arange(len(rows)) % num_views
        for first in range(0, len(rows), CLIPS_A_PIECE):
            some = slice(first, first + CLIPS_A_PIECE)
            yield _Piece(shard, rows[some], views[some])


def _feature_batches(
    loader: ViewLoader, teacher: FrozenTeacher, pieces: Sequence[_Piece], config: TeacherCacheConfig
) -> Iterator[NumpyBatch]:
    items_a_task = batches_a_task(num_clips=CLIPS_A_PIECE, bytes_a_clip=loader.bytes_a_clip)

    def load(piece: _Piece) -> NumpyBatch:
        return loader.view_batch(piece.rows, piece.views)

    if config.num_workers == 0:
        here = TeacherActor(teacher, use_gpu=config.use_gpu)
        return map(here.with_features, stream(load, pieces, items_a_task=items_a_task))
    reserved = {"CPU": config.cpus_per_worker} | ({"GPU": 1.0} if config.use_gpu else {})
    pools.check_workers_fit(config.num_workers, reserved)
    of_actors = dataset_of(load, pieces, items_a_task=items_a_task).map_batches(
        TeacherActor,
        fn_constructor_args=(teacher,),
        fn_constructor_kwargs={"use_gpu": config.use_gpu},
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=config.num_workers),
        num_cpus=config.cpus_per_worker,
        num_gpus=1 if config.use_gpu else 0,
        label_selector=pools.selector(
            "train"
        ),  # as in `evaluate.scoring`: a step of its own, and the actors do not decode
    )
    return unpacked_of_actors(of_actors)


def _write(index: ShardIndex, shard: int, batch: NumpyBatch, files: FeatureFiles) -> int:
    """Write the side file of a shard from its views, K a row; return the number of rows that could not be read.

    A shard without a readable row gets no file, because its storage may be back at the next start.
    """
    by_row = {name: values.reshape(-1, files.num_views, *values.shape[1:]) for name, values in batch.items()}
    reasons = [max(of_row.tolist()) for of_row in by_row["reason_B"]]
    is_read = np.array([reason == "" for reason in reasons])
    if not np.isfinite(by_row["teacher_BD"][is_read]).all():
        raise UserError(
            f"the teacher gives features that are not finite for rows of {index.shard_paths[shard]}, so its weights "
            "are damaged: get them again, or choose another teacher"
        )
    if not is_read.any():
        return len(reasons)
    shard_path = index.shard_paths[shard]
    places = {int(row): place for place, row in enumerate(index.row_N[index.shard_N == shard])}
    video_ids = [row["video_id"] for row in rows_of_shard(shard_path).rows]
    try:
        with files.open_file(shard_path) as append:
            for row, video_id in enumerate(video_ids):
                place = places.get(row)
                reason = _NOT_ASKED_FOR if place is None else reasons[place]
                kept = slice(0, 0) if reason else slice(None)
                starts_K, feature_KD = (by_row[name][place or 0][kept] for name in ("start_B", "teacher_BD"))
                append(RowFeatures(video_id, reason, starts_K, feature_KD))
    except OSError as error:
        raise UserError(
            f"the teacher's features cannot be written to {files.file_of(shard_path)}: {error}. Those of earlier "
            "shards are kept: make room, then start again"
        ) from error
    return int((~is_read).sum())
