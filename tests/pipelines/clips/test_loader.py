"""Rows become clips; those that cannot be read become a reason."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.clips.loader import BatchLoader, ClipView
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
