"""What a student and a teacher see of the same rows."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.clips.loader import Drawn, RandomCrop
from pipelines.shards.index import load_index
from pipelines.transfer.pair_loader import PairLoader, TeacherView, row_ids
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.cropping import center_crop
from tests.pipelines.whole_height_views import views

CLIP_48 = ClipView(num_frames=8, frame_stride=2, crop_size=48, short_side=48, short_video="loop")
TEACHER_48 = TeacherView(num_frames=8, crop_size=48, short_side=48)


@pytest.fixture(scope="module")
def index(synthetic_shards):
    return load_index([synthetic_shards], fold=1, splits=["train"])


def test_the_clip_is_a_window_and_the_teacher_sees_its_frames_with_another_crop_and_flip(index):
    rows, seeds = np.arange(6), [[0, 0, row] for row in range(6)]
    batch = PairLoader(index, CLIP_48, teacher=TEACHER_48).random_batch(rows, seeds)
    of_clip = [views(index, row, batch["clip_BTHWC"][row]) for row in rows]
    of_teacher = [views(index, row, batch["teacher_frames_BTHWC"][row]) for row in rows]
    for clip_views, teacher_views in zip(of_clip, of_teacher, strict=True):
        assert {start for start, *_ in clip_views} & {start for start, *_ in teacher_views}
    assert sum(not (a & b) for a, b in zip(of_clip, of_teacher, strict=True)) >= 3


@pytest.mark.parametrize("random_crop", [RandomCrop(), RandomCrop(crop="random_resized")])
def test_a_shared_crop_shows_the_teacher_what_the_student_sees(index, random_crop):
    teacher = replace(TEACHER_48, is_shared_crop=True)
    rows = np.arange(12)
    for view in (teacher, replace(teacher, num_views=3), replace(teacher, is_literal=True)):
        loader = PairLoader(index, CLIP_48, random_crop, teacher=view)
        batch = loader.random_batch(rows, [[0, 0, row] for row in range(12)])
        is_match_B = batch.get("is_match_B", np.ones(12, bool))
        assert is_match_B.sum() > 3
        assert np.array_equal(batch["clip_BTHWC"][is_match_B], batch["teacher_frames_BTHWC"][is_match_B])


def test_a_shared_crop_shows_the_same_part_to_a_teacher_of_other_pixels(index):
    teacher = TeacherView(num_frames=8, crop_size=96, short_side=110, is_shared_crop=True)
    loader = PairLoader(index, CLIP_48, RandomCrop(crop="random_resized", min_area=0.3), teacher=teacher)
    batch = loader.random_batch(np.arange(20), [[0, 0, row] for row in range(20)])
    halved = batch["teacher_frames_BTHWC"].reshape(20, 8, 48, 2, 48, 2, 3).mean(axis=(3, 5))
    difference_B = np.abs(halved - batch["clip_BTHWC"]).mean(axis=(1, 2, 3, 4))
    mirrored_B = np.abs(halved[:, :, :, ::-1] - batch["clip_BTHWC"]).mean(axis=(1, 2, 3, 4))
    assert (difference_B < 0.5 * mirrored_B).mean() > 0.8
    assert np.median(difference_B) < 6


def test_a_literal_pair_is_drawn_anew_and_a_negative_has_frames_of_another_source(index):
    loader = PairLoader(index, CLIP_48, teacher=replace(TEACHER_48, is_literal=True))
    rows = np.arange(len(index))
    batch = loader.random_batch(rows, [[0, 0, int(row)] for row in rows])
    is_match_B = batch["is_match_B"]
    assert 0.2 < is_match_B.mean() < 0.8
    for row in rows:
        own = views(index, row, batch["teacher_frames_BTHWC"][row])
        of_clip = views(index, row, batch["clip_BTHWC"][row])
        assert bool({start for start, *_ in own} & {start for start, *_ in of_clip}) == is_match_B[row]
        if not is_match_B[row]:
            found = [other for other in rows if views(index, other, batch["teacher_frames_BTHWC"][row])]
            assert [index.source_N[other] != index.source_N[row] for other in found] == [True]
    again = loader.random_batch(rows, [[1, 0, int(row)] for row in rows])
    assert not np.array_equal(again["is_match_B"], is_match_B)


@pytest.mark.parametrize("num_views", [None, 6])
def test_seconds_that_are_a_whole_number_of_frames_give_the_pairs_of_that_stride(index, num_views):
    by_seconds = replace(CLIP_48, frame_stride=None, seconds_per_frame=0.08)  # of 25 frames a second
    teacher = replace(TEACHER_48, has_other_time=True, num_views=num_views)
    one, other = (
        PairLoader(index, clip, teacher=teacher).random_batch(np.arange(6), [[0, 0, row] for row in range(6)])
        for clip in (CLIP_48, by_seconds)
    )
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("num_views", [None, 6])
def test_another_time_shares_no_frame_with_the_clip_where_the_row_is_long_enough(index, num_views):
    teacher = replace(TEACHER_48, has_other_time=True, num_views=num_views)
    rows = np.arange(len(index))
    batch = PairLoader(index, CLIP_48, teacher=teacher).random_batch(rows, [[0, 0, int(row)] for row in rows])
    assert 0.2 < batch["is_other_time_B"].mean() < 1  # of 40 frames a clip covers 15
    for row in rows[:8]:
        own = {start for start, *_ in views(index, row, batch["teacher_frames_BTHWC"][row])}
        other = {start for start, *_ in views(index, row, batch["other_teacher_frames_BTHWC"][row])}
        assert any(abs(a - b) >= 15 for a in own for b in other) == batch["is_other_time_B"][row]
    long_clip = replace(CLIP_48, num_frames=16)
    batch = PairLoader(index, long_clip, teacher=replace(teacher, num_frames=16)).random_batch(rows[:4], [[0]] * 4)
    assert not batch["is_other_time_B"].any()


def test_clips_start_at_the_fixed_views_and_the_teacher_sees_no_other_crop_there(index):
    teacher = replace(TEACHER_48, num_views=2)
    loader = PairLoader(index, CLIP_48, teacher=teacher)
    fixed = loader.view_batch(np.array([5, 5]), np.array([0, 1]))
    seen = loader.random_batch(np.full(20, 5), [[seed] for seed in range(20)])
    for clip, frames in zip(seen["clip_BTHWC"], seen["teacher_frames_BTHWC"], strict=True):
        [view] = [v for v in (0, 1) if np.array_equal(frames, fixed["teacher_frames_BTHWC"][v])]
        assert fixed["start_B"][view] in {start for start, *_ in views(index, 5, clip)}
    assert len({clip.tobytes() for clip in seen["clip_BTHWC"]}) > 4  # the student's own crop and flip stay free
    other = PairLoader(index.select(np.array([9, 5])), CLIP_48, teacher=teacher).view_batch(
        np.array([1]), np.array([1])
    )
    assert np.array_equal(other["teacher_frames_BTHWC"][0], fixed["teacher_frames_BTHWC"][1])


@pytest.mark.parametrize("changes", [{}, {"num_views": 3}, {"is_literal": True}, {"is_shared_crop": True}])
def test_without_flips_neither_network_sees_a_mirrored_frame(index, changes):
    teacher = replace(TEACHER_48, has_other_time=True, **changes)
    rows = np.arange(len(index))
    batch = PairLoader(index, CLIP_48, RandomCrop(flip=False), teacher=teacher).random_batch(rows, [[r] for r in rows])
    is_match_B = batch.get("is_match_B", np.ones(len(rows), bool))
    for row in rows:
        seen = [batch[name][row] for name in ("clip_BTHWC", "other_teacher_frames_BTHWC")]
        seen += [batch["teacher_frames_BTHWC"][row]] if is_match_B[row] else []
        assert all(1 in {flip for *_, flip in views(index, row, frames)} for frames in seen)


def test_without_flips_the_views_of_a_cached_pass_are_those_with_flips_but_not_mirrored(index):
    rows, numbers = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    teacher = replace(TEACHER_48, num_views=2)
    plain, flipped = (
        PairLoader(index, CLIP_48, RandomCrop(flip=flip), teacher=teacher).view_batch(rows, numbers)[
            "teacher_frames_BTHWC"
        ]
        for flip in (False, True)
    )
    is_mirrored_B = [not np.array_equal(*both) for both in zip(plain, flipped, strict=True)]
    assert any(is_mirrored_B)
    flipped[is_mirrored_B] = flipped[is_mirrored_B, :, :, ::-1]
    assert np.array_equal(plain, flipped)


def test_a_teacher_without_random_crops_sees_the_middle_and_never_mirrored(index):
    teacher = replace(TEACHER_48, crop_size=40, is_random_crop=False)
    rows = np.arange(6)
    batch = PairLoader(index, CLIP_48, teacher=teacher).random_batch(rows, [[row] for row in rows])
    for row in rows:
        loader = PairLoader(index, CLIP_48, teacher=replace(teacher, num_views=1))
        start = int(batch["start_B"][row])
        frames = start + 2 * np.arange(8)
        [shown] = loader._decode(
            int(row), [Drawn(frames, loader._scaled_size(int(row), 48), center_crop(48, 64, crop_size=40), False)]
        )
        assert np.array_equal(batch["teacher_frames_BTHWC"][row], shown)
    assert not np.array_equal(batch["clip_BTHWC"][0][:, 4:44, 4:44], batch["teacher_frames_BTHWC"][0])


def test_rows_have_the_same_numbers_in_all_selections_of_an_index(index):
    half = index.select(np.arange(len(index)) % 2 == 1)
    all_ids = row_ids(index, np.arange(len(index)))
    assert len(set(all_ids.tolist())) == len(index)
    assert row_ids(half, np.arange(len(half))).tolist() == all_ids[1::2].tolist()
    batch = PairLoader(half, CLIP_48, teacher=TEACHER_48).random_batch(np.array([2, 0]), [[0], [1]])
    assert batch["row_id_B"].tolist() == all_ids[[5, 1]].tolist()
