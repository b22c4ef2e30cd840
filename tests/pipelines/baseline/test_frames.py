"""The frames of a video that a frozen 2D network sees."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.baseline.frames import FrameLoader
from pipelines.clips.loader import BatchLoader
from pipelines.shards.index import load_index
from t3d_core.video.clip_sampling import ClipView
from tests.pipelines.damage import damage_row


@pytest.fixture
def index(synthetic_shards, tmp_path):
    shards = shutil.copytree(synthetic_shards, tmp_path / "shards", ignore=shutil.ignore_patterns("videos"))
    return load_index([shards], fold=1, splits=["test"])


def test_frames_are_spread_from_the_first_to_the_last_and_a_short_video_repeats_some(index):
    index = replace(index, num_frames_N=np.array([40, 3, 1] + [40] * (len(index) - 3)))
    loader = FrameLoader(index, num_frames=4, crop_size=16)
    assert loader.positions(0).tolist() == [0, 13, 26, 39]
    assert loader.positions(1).tolist() == [0, 1, 1, 2]
    assert loader.positions(2).tolist() == [0, 0, 0, 0]


def test_views_are_the_centre_of_those_frames_in_whatever_batches_they_are_loaded(index):
    loader = FrameLoader(index, num_frames=40, crop_size=24)
    rows, views = np.array([0, 0, 1, 1, 1]), np.array([0, 39, 5, 6, 7])
    batch = loader.view_batch(rows, views)
    assert batch["start_B"].tolist() == views.tolist()
    # A clip that is the whole video has all its frames, in the centre crop of testing.
    whole = BatchLoader(index, ClipView(40, 1, crop_size=24, short_side=27, short_video="loop"))
    frames_BTHWC = whole.center_batch(np.array([0, 1]))["clip_BTHWC"]
    np.testing.assert_array_equal(batch["teacher_frames_BTHWC"][:, 0], frames_BTHWC[rows, views])
    alone = loader.view_batch(rows[3:4], views[3:4])
    np.testing.assert_array_equal(alone["teacher_frames_BTHWC"][0], batch["teacher_frames_BTHWC"][3])
    assert loader.bytes_a_clip == batch["teacher_frames_BTHWC"][0].nbytes


def test_a_damaged_row_gives_its_reason_and_leaves_the_others_alone(index):
    damage_row(Path(index.shard_paths[index.shard_N[0]]), int(index.row_N[0]))
    batch = FrameLoader(index, num_frames=2, crop_size=16).view_batch(np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert batch["reason_B"][0] == batch["reason_B"][1] != ""
    assert batch["reason_B"][2] == ""
    assert batch["teacher_frames_BTHWC"][2].any()
