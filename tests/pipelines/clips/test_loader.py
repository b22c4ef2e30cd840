"""Rows become clips; those that cannot be read become a reason."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.clips.loader import BatchLoader, RandomCrop
from pipelines.clips.views import ViewPlan
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.storage import encode_video
from tests.pipelines.whole_height_views import views

VIEW = ClipView(num_frames=8, frame_stride=2, crop_size=32, short_side=37, short_video="loop")


@pytest.mark.parametrize("is_h264", [True, False])
def test_only_where_odd_frames_are_for_nobody_else_all_starts_are_even(is_h264, index):
    loader = BatchLoader(
        replace(index, is_h264_N=np.full(len(index), is_h264)), replace(VIEW, crop_size=48, short_side=48)
    )
    batch = loader.random_batch(np.arange(8), [[0, 0, row] for row in range(8)])
    starts = [{start for start, *_ in views(index, row, batch["clip_BTHWC"][row])} for row in range(8)]
    assert all(starts)
    assert all(found & set(range(0, 40, 2)) for found in starts) == is_h264


def test_padded_frames_are_counted(index):
    view = ClipView(num_frames=32, frame_stride=2, crop_size=32, short_side=37, short_video="repeat_last")
    batch = BatchLoader(index, view).center_batch(np.arange(3))
    assert batch["num_padded_B"].tolist() == [12, 12, 12]  # frames 40, 42, ... 62 do not exist


def test_a_damaged_row_among_the_middle_clips_is_told_too(damaged_index):
    for num_segments, shape in ((1, (3, 8, 32, 32, 3)), (2, (3, 2, 8, 32, 32, 3))):
        view = replace(VIEW, num_segments=num_segments)
        batch = BatchLoader(damaged_index, view).center_batch(np.arange(3))
        assert batch["clip_BTHWC"].shape == shape
        assert [bool(reason) for reason in batch["reason_B"]] == [False, True, False]


def test_frames_that_cannot_be_decoded_are_told_as_frames_that_cannot_be_read(index, monkeypatch):
    """Shards from before there were checksums give whatever bytes are there."""
    monkeypatch.setattr("pipelines.shards.index.read_frames", lambda path, row: b"no video")
    batch = BatchLoader(index, VIEW).random_batch(np.arange(2), [[0], [1]])
    assert ["not a video" in reason for reason in batch["reason_B"]] == [True, True]
    assert not batch["clip_BTHWC"].any()


@pytest.mark.parametrize("num_segments", [1, 2])
def test_a_mirrored_clip_gets_the_label_of_the_other_side(index, num_segments):
    rows, seeds = np.arange(len(index)), [[0, 0, row] for row in range(len(index))]
    view = replace(VIEW, num_segments=num_segments)
    mirrored_label_K = np.arange(len(index.class_names))
    mirrored_label_K[:4] = [1, 0, 2, 3]
    loader = BatchLoader(index, view, RandomCrop("random_resized"), mirrored_label_K)
    batch = loader.random_batch(rows, seeds)
    plain = BatchLoader(index, view, RandomCrop("random_resized")).random_batch(rows, seeds)
    upright = BatchLoader(index, view, RandomCrop("random_resized", flip=False), mirrored_label_K)
    upright = upright.random_batch(rows, seeds)
    assert np.array_equal(batch["clip_BTHWC"], plain["clip_BTHWC"])
    assert np.array_equal(upright["label_B"], index.label_N)
    assert np.array_equal(loader.center_batch(rows)["label_B"], index.label_N)
    is_mirrored_B = np.array(
        [not np.array_equal(*clips) for clips in zip(batch["clip_BTHWC"], upright["clip_BTHWC"], strict=True)]
    )
    assert 0.2 < is_mirrored_B.mean() < 0.8
    expected_B = np.where(is_mirrored_B, mirrored_label_K[index.label_N], index.label_N)
    assert np.array_equal(batch["label_B"], expected_B)
    assert (batch["label_B"] != plain["label_B"]).sum() > 1
    assert batch["label_B"].dtype == plain["label_B"].dtype
    assert batch.keys() == plain.keys() == loader.center_batch(rows).keys()


def test_a_clip_that_cannot_be_read_keeps_its_label(damaged_index):
    mirrored_label_K = np.arange(len(damaged_index.class_names))[::-1]
    loader = BatchLoader(damaged_index, VIEW, mirrored_label_K=mirrored_label_K)
    batch = loader.random_batch(np.arange(3), [[0], [1], [2]])
    assert [bool(reason) for reason in batch["reason_B"]] == [False, True, False]
    assert batch["label_B"][1] == damaged_index.label_N[1]


def test_seconds_that_are_a_whole_number_of_frames_give_the_clips_of_that_stride(index):
    rows, seeds = np.arange(6), [[0, 0, row] for row in range(6)]
    by_seconds = replace(VIEW, frame_stride=None, seconds_per_frame=0.08)  # of 25 frames a second
    for segments in (1, 2):
        batches = []
        for view in (VIEW, by_seconds):
            loader = BatchLoader(index, replace(view, num_segments=segments))
            batches.append([loader.random_batch(rows, seeds), loader.center_batch(rows)])
        for one, other in zip(*batches, strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) for name in one)


@dataclass
class Scene:
    """The index of one scene at several rates: it gets lighter by 60 levels a second."""

    folder: Path
    fps_N: np.ndarray

    def __post_init__(self):
        self.num_frames_N = np.round(3 * self.fps_N).astype(int)
        self.height_N = self.width_N = np.full(len(self.fps_N), 32)
        self.frame_offset_N = self.label_N = self.source_N = np.zeros(len(self.fps_N), int)
        self.key_distance_N = np.full(len(self.fps_N), 32)
        self.is_h264_N = np.ones(len(self.fps_N), bool)

    def __len__(self):
        return len(self.fps_N)

    def frames(self, row):
        path = self.folder / f"{row}.mp4"
        if not path.exists():
            level_T = np.arange(self.num_frames_N[row]) / self.fps_N[row] * 60 + 30
            frames = (np.full((32, 32, 3), level, np.uint8) for level in np.round(level_T))
            encode_video(frames, path=path, fps=self.fps_N[row])
        return path.read_bytes()


def test_clips_of_videos_of_other_rates_show_the_same_moments(tmp_path):
    index = Scene(tmp_path, np.array([15.0, 24.0, 30000 / 1001, 30.0, 60.0]))
    view = replace(VIEW, frame_stride=None, seconds_per_frame=0.1, num_frames=10, short_side=32)
    plan = ViewPlan(BatchLoader(index, view))
    batch = plan.batch(range(plan.num_views))
    assert not any(batch["reason_B"])
    level_BT = batch["clip_BSTHWC"].mean(axis=(1, 3, 4, 5))
    for clip_number in (0, 1):
        expected_T = 30 + 60 * 0.1 * (np.arange(10) + 10 * clip_number)
        for row, fps in enumerate(index.fps_N):
            level_T = level_BT[np.flatnonzero(batch["row_B"] == row)[clip_number]]
            assert np.abs(level_T - expected_T).max() < 60 * 0.5 / fps + 1.5  # half a frame, and the encoding
    middle_BT = BatchLoader(index, view).center_batch(np.arange(5))["clip_BTHWC"].mean(axis=(2, 3, 4))
    assert np.abs(middle_BT - middle_BT[3]).max() < 60 / 15 + 1.5  # a clip starts at a frame
    by_stride = BatchLoader(index, replace(VIEW, num_frames=10, short_side=32)).center_batch(np.arange(5))
    slope_B = np.ptp(by_stride["clip_BTHWC"].mean(axis=(2, 3, 4)), axis=1)
    assert slope_B[0] > 3 * slope_B[4], "with a stride in frames they do not"
