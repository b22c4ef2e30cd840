"""What a baseline knows of a video: a frozen 2D network's features of its frames, or its shape and length alone.

Legend: N rows of the index, T frames of a row, D feature width.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from filelock import lock_descriptor

from pipelines.baseline.config import BaselineConfig
from pipelines.baseline.frames import FrameLoader
from pipelines.runtime.paths import output_path
from pipelines.settings.build import changed
from pipelines.shards.folder import open_shard_folder
from pipelines.shards.index import ShardIndex, load_index
from pipelines.shards.reading import read_videos
from pipelines.transfer.config import TeacherCacheConfig
from pipelines.transfer.stage import teacher_of
from pipelines.transfer.teacher_features import FeatureFiles
from pipelines.transfer.teacher_pass import identity_of, run_teacher_pass
from t3d_core.transfer.frame_targets import TargetKind, check_num_frames, summarize_frames
from t3d_core.transfer.teacher import check_teacher

_SPLITS = ("train", "val", "test")


class VideoFeatures(NamedTuple):
    """The features of rows, and row -> reason of those that have none, whose features are zeros."""

    feature_ND: npt.NDArray[np.float64]
    reasons: dict[int, str]


def shape_and_length(index: ShardIndex, folders: Sequence[Path]) -> VideoFeatures:
    """The logarithms of number of frames, frames a second, height, width, aspect ratio and stored bytes a frame.

    Of a labelled video, which is one row, the tables know the stored bytes.
    """
    bytes_of = {
        (folder.absolute(), video["video_id"]): video["stored_bytes"]
        for folder in folders
        for video in read_videos(open_shard_folder(folder), ["video_id", "stored_bytes"]).to_pylist()
    }
    folder_of = [Path(path).parents[1].absolute() for path in index.shard_paths]
    bytes_N = np.array(
        [bytes_of[folder_of[shard], video_id] for shard, video_id in zip(index.shard_N, index.video_id_N, strict=True)]
    )
    num_frames_N, height_N, width_N = (
        array.astype(np.float64) for array in (index.num_frames_N, index.height_N, index.width_N)
    )
    known = [num_frames_N, index.fps_N, height_N, width_N, width_N / height_N, bytes_N / num_frames_N]
    return VideoFeatures(np.log(np.stack(known, axis=1)), {})


class TeacherFeatures:
    """A teacher's features of frames of all rows of a fold, in side files of the shards.

    Baselines with the same teacher, frames and rows share them, whatever they train on.
    """

    def __init__(self, config: BaselineConfig, folders: Sequence[Path]) -> None:
        """Load and check the teacher, and compute the features that are missing.

        Args:
            config: of the baseline.
            folders: prepared shards.

        Raises:
            UserError: as in `check_teacher` and `run_teacher_pass`.
        """
        of_teacher = config.teacher
        check_num_frames(of_teacher.target, of_teacher.num_frames or 0)
        teacher = teacher_of(changed(of_teacher, {"target": "mean"}))  # each view is one frame
        check_teacher(teacher, crop_size=of_teacher.crop_size, what=f"teacher {of_teacher.weights or of_teacher.kind}")
        num_frames = of_teacher.num_frames
        assert num_frames is not None, "the config has checked it"
        index = load_index(folders, fold=config.data.fold, splits=_SPLITS)
        loader = FrameLoader(index, num_frames, of_teacher.crop_size)
        described = [identity_of(of_teacher, teacher), num_frames, of_teacher.crop_size, index.fingerprint()]
        fingerprint = hashlib.sha256(json.dumps(["frames of videos", *described]).encode()).hexdigest()
        self._files = FeatureFiles(fingerprint, num_frames, teacher.feature_dim)
        scaling = config.scaling
        pool = TeacherCacheConfig(
            num_views=num_frames,
            num_workers=scaling.most_workers(),
            cpus_per_worker=scaling.resources_per_worker.get("CPU", 1.0),
            use_gpu=scaling.use_gpu,
        )
        storage = output_path(config.storage)
        storage.mkdir(parents=True, exist_ok=True)
        with (storage / ".teacher_turn").open("w") as turn:
            lock_descriptor(turn.fileno())  # of trials that need the same features, the first computes them
            run_teacher_pass(loader, teacher, self._files, pool)

    def of_rows(self, index: ShardIndex, target: TargetKind) -> VideoFeatures:
        """What `target` makes of the frames of each row."""
        found = [self._files.read_row(index, row) for row in range(len(index))]
        reasons = {row: each.reason for row, each in enumerate(found) if each.reason}
        blank = np.zeros((self._files.num_views, self._files.feature_dim), np.float32)
        feature_NTD = torch.from_numpy(np.stack([blank if each.reason else each.feature_KD for each in found]))
        return VideoFeatures(summarize_frames(feature_NTD.double(), target).numpy(), reasons)
